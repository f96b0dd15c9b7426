"""The `paths` keys: where data, results and caches are."""

from dataclasses import dataclass

from omegaconf import MISSING

from distdiff.keys import Group, key


@dataclass
class PathsKeys:
    data_dir: str = MISSING
    output_dir: str = MISSING
    expanded_dir: str = MISSING
    cache_dir: str = MISSING
    image_cache_gb: float = key(
        at_least=0, at_most=1e6
    )  # limit on the decoded images kept in cache_dir; at 0, no images are kept


PATHS = Group("paths", PathsKeys, paths=("data_dir", "output_dir", "expanded_dir", "cache_dir"))
