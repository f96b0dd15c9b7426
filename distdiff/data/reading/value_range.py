"""`dataset.value_range`: which values of greyscale images with more than 8 bits are black and white."""

import threading
from collections.abc import Callable, Sequence
from typing import Any

from distdiff.errors import UserError

Limits = tuple[float, float]  # the values that are shown as black and as white
AUTO, FULL = "auto", "full"
SIXTEEN_BITS: Limits = (0, 65535)
BITS = (8, 10, 12, 14, 16)  # usual numbers of bits in 16-bit files; cameras and scanners often use only 10, 12 or 14
ALLOWED = f"{AUTO}, {FULL}, or [low, high], the values that are black and white, with low below high"


class ValueRange:
    """The limits of 16-bit greyscale or, if `given` is true, of all greyscale with more than 8 bits.

    The limits of a dataset that is read with `auto` are unknown until an image needs them. They are then those of the
    smallest number of bits in `BITS` that holds the largest value of the training images. All splits share the object.
    """

    def __init__(self, limits: Limits | None = SIXTEEN_BITS, given: bool = False) -> None:
        self.known = limits
        self.given = given
        self._find: Callable[[], int | None] = lambda: None
        self._lock = threading.Lock()

    @classmethod
    def of(cls, value: Any) -> "ValueRange":
        """The range that the key `dataset.value_range` gives. Raises `UserError` for a value that is not allowed."""
        if value in (AUTO, FULL):
            return cls(None if value == AUTO else SIXTEEN_BITS)
        pair = tuple(value) if isinstance(value, Sequence) and not isinstance(value, str) else ()
        if len(pair) != 2 or not all(type(limit) in (int, float) for limit in pair) or not pair[0] < pair[1]:
            raise UserError(f"dataset.value_range={value} is not allowed: {ALLOWED}")
        return cls(pair, given=True)

    def find_by(self, find: Callable[[], int | None]) -> None:
        """Sets the function that finds the largest value of the training images, or None if they have no such images."""
        self._find = find

    def limits(self) -> Limits:
        """The limits, which are found now if they are not known yet."""
        if self.known is None:
            with self._lock:  # threads that decode images may ask at the same time
                if self.known is None:
                    largest = self._find()
                    self.known = SIXTEEN_BITS if largest is None else (0, 2 ** bits_for(largest) - 1)
        return self.known


def bits_for(largest: int) -> int:
    """The smallest number of bits in `BITS` that holds the value `largest`.

    >>> [bits_for(largest) for largest in (0, 255, 256, 4095, 4096, 65535)]
    [8, 8, 10, 12, 14, 16]
    """
    return next(bits for bits in BITS if largest < 2**bits)
