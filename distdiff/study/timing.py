"""How long each stage took, summed over its calls."""

import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager

from distdiff.caching.stages import StageCache


class StageTimer:
    """`with timer("expand none"): ...` adds to that stage's seconds, in order of first use.

    `made` has how much of the cache's content was made in a stage: nothing where all was found there.
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
