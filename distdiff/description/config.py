"""The `describe` keys."""

from dataclasses import dataclass

from distdiff.keys import Group, key


@dataclass
class DescribeKeys:
    images_per_class: int = key(at_least=1)
    tile_size: int = key(at_least=8, at_most=1024)
    near_distance: int = key(at_least=0, at_most=32)
    near_difference: float = key(at_least=0, at_most=255)


DESCRIBE = Group("describe", DescribeKeys)
