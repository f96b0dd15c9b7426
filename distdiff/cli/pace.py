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
        self.began = self.latest = clock()
        self.done = 0
        self.seconds: list[float] = []  # of each job that did not fail

    def count(self, failed: bool = False) -> None:
        """Another job is done, or has failed."""
        self.done += 1
        before, self.latest = self.latest, self.clock()
        if not failed:
            self.seconds.append(self.latest - before)

    def words(self) -> str | None:
        """How many jobs are done and how long the others will take; None if none is left, or if it is too early to say.

        A job is taken to last as long as the average of those after the first, which also makes what all of them share.

        >>> times = iter([0, 100, 160, 161, 220])
        >>> pace = Pace(6, clock=lambda: next(times))
        >>> pace.count(), pace.words()
        (None, '1 of 6 jobs done, 0:01:40 so far, about 8.3 minutes left for the others')
        >>> pace.count(), pace.count(failed=True), pace.count(), pace.words()
        (None, None, None, '4 of 6 jobs done, 0:03:40 so far, about 2 minutes left for the others')
        """
        elapsed, left = self.latest - self.began, self.total - self.done
        if elapsed < SOON or left <= 0:
            return None
        so_far = f"{self.done:,} of {self.total:,} jobs done, {timedelta(seconds=int(elapsed))} so far"
        if not self.seconds:
            return f"{so_far}, time left unknown"
        later = self.seconds[1:] or self.seconds
        rest = left * sum(later) / len(later)
        return (
            f"{so_far}, nearly done" if rest < 1 else f"{so_far}, about {duration(round(rest), 2)} left for the others"
        )
