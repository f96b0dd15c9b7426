"""Where the values of a numeric key stand on an axis."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

DECADES = 10.0  # positive values that differ by this factor and more stand on a logarithmic axis
MOST_TICKS = 9
LEAST_GAP = 0.3  # decades between zero's place and the smallest positive value


@dataclass(frozen=True)
class Scale:
    """An axis for `values`, which are in ascending order. `zero` is the place of 0 on a logarithmic axis, or else None.

    >>> Scale.of([0, 1, 10, 100]).place(100), Scale.of([0, 1, 10, 100]).place(0), Scale.of([0, 1, 2]).place(2)
    (2.0, -1.0, 2.0)
    """

    values: tuple[float, ...]
    is_log: bool = False
    zero: float | None = None

    @classmethod
    def of(cls, values: Sequence[float]) -> "Scale":
        """The logarithmic axis if values span decades, with 0 at a place of its own; a linear one for others."""
        ascending = tuple(sorted(set(values)))
        positive = [value for value in ascending if value > 0]
        if ascending[0] < 0 or len(positive) < 2 or positive[-1] / positive[0] < DECADES:
            return cls(ascending)
        places = [math.log10(value) for value in positive]
        gaps = sorted(after - before for before, after in pairwise(places))
        zero = places[0] - max(LEAST_GAP, gaps[len(gaps) // 2]) if ascending[0] == 0 else None
        return cls(ascending, True, zero)

    def place(self, value: float) -> float:
        if not self.is_log:
            return float(value)
        return self.zero if value == 0 else math.log10(value)

    @property
    def ticks(self) -> list[float]:
        """The values that the axis names: as many as have room."""
        named = [self.values[0]]
        for value in self.values[1:]:
            if self.place(value) - self.place(named[-1]) >= self.width / MOST_TICKS:
                named.append(value)
        return named

    @property
    def width(self) -> float:
        """The length of the axis; 1 for a single value."""
        return (self.place(self.values[-1]) - self.place(self.values[0])) or 1.0
