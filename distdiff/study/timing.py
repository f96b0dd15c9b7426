"""Measures how long each stage takes, summed over its calls."""

import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from distdiff.caching.stages import StageCache


class StageTimer:
    """Sums the seconds of each stage, in the order in which stages are first used.

    `with timer("expand none"): ...` adds to the stage `expand none`. `made` counts the cache entries that each stage
    computed. The count is 0 if all entries of a stage were found in the cache. The seconds of processes that work at the
    same time are added too, so that a study may have more of them than it lasts.
    """

    def __init__(self, cache: StageCache) -> None:
        self.cache = cache
        self.seconds: dict[str, float] = defaultdict(float)
        self.made: dict[str, int] = defaultdict(int)

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        started, before = time.perf_counter(), self.cache.made
        try:
            yield
        finally:
            self.seconds[stage] += time.perf_counter() - started
            self.made[stage] += self.cache.made - before

    def add(self, seconds: Mapping[str, float], made: Mapping[str, int]) -> None:
        """Adds the times and the counts of another process."""
        for stage, spent in seconds.items():
            self.seconds[stage] += spent
            self.made[stage] += made.get(stage, 0)
