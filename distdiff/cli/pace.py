"""How far a multirun has come, and how long the rest of its jobs will take."""

import time
from collections.abc import Callable
from datetime import timedelta

from distdiff.wording import duration

SOON = 10.0  # seconds; a multirun that is younger says nothing


class Pace:
    """The jobs of a multirun that are done, one after the other, out of `total`."""

    def __init__(self, total: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.total = total
        self.clock = clock
        self.ends = [clock()]  # the beginning, and the end of each job

    def count(self) -> None:
        """Another job is done."""
        self.ends.append(self.clock())

    def words(self) -> str | None:
        """How many jobs are done and how long the others will take; None if none is left, or if it is too early to say.

        A job is taken to last as long as the average of those after the first, which also makes what all of them share.

        >>> times = iter([0, 100, 160, 220])
        >>> pace = Pace(5, clock=lambda: next(times))
        >>> pace.count(), pace.words()
        (None, '1 of 5 jobs done, 0:01:40 so far, about 6.7 minutes left for all jobs')
        >>> pace.count(), pace.count(), pace.words()
        (None, None, '3 of 5 jobs done, 0:03:40 so far, about 2 minutes left for all jobs')
        """
        first, *others = (end - begin for begin, end in zip(self.ends, self.ends[1:], strict=False))
        elapsed, left = self.ends[-1] - self.ends[0], self.total - len(others) - 1
        if elapsed < SOON or left <= 0:
            return None
        each = sum(others) / len(others) if others else first
        so_far, rest = timedelta(seconds=int(elapsed)), duration(round(left * each), 2)
        return f"{len(others) + 1:,} of {self.total:,} jobs done, {so_far} so far, about {rest} left for all jobs"
