"""Processes many images in several threads.

Decoding, resizing and hashing release the GIL, so that threads run in parallel. Threads are used instead of processes,
because a reader's closures cannot be pickled and a process would have to send the pixels back.
"""

import itertools
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

from distdiff.ranks.world import world

S = TypeVar("S")
T = TypeVar("T")
CHUNK = 4  # items per task; the cost of a task is as large as that of reading a tiny image
AHEAD = 2  # chunks per thread that are computed before the caller asks for them


@contextmanager
def threads(num_workers: int | None) -> Iterator[ThreadPoolExecutor]:
    """A pool of `num_workers` threads. If `num_workers` is None, a fair share of the cores is used.

    Tasks that have not begun when the block ends are cancelled.
    """
    pool = ThreadPoolExecutor(num_workers or world().fair_share(), thread_name_prefix="images")
    try:
        yield pool
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def prefetched(make: Callable[[S], T], items: Iterable[S], num_workers: int | None = None) -> Iterator[T]:
    """Yields `make(item)` for all items in order, computed a few items ahead by `num_workers` threads.

    If `num_workers` is None, a fair share of the cores is used. An exception from `make(item)` is raised where the
    result of this item would be yielded.

    >>> list(prefetched(lambda number: number**2, range(4), num_workers=2))
    [0, 1, 4, 9]
    """
    workers, items = num_workers or world().fair_share(), iter(items)
    with threads(workers) as pool:
        waiting: deque[Future[tuple[list[T], Exception | None]]] = deque()
        while (chunk := list(itertools.islice(items, CHUNK))) or waiting:
            if chunk:
                waiting.append(pool.submit(_made, make, chunk))
            if len(waiting) > AHEAD * workers or not chunk:
                made, failure = waiting.popleft().result()
                yield from made
                if failure is not None:
                    raise failure


def _made(make: Callable[[S], T], items: Iterable[S]) -> tuple[list[T], Exception | None]:
    """The results of all items before the first item that fails, and that item's exception (None if no item fails)."""
    made: list[T] = []
    for item in items:
        try:
            made.append(make(item))
        except Exception as error:
            return made, error
    return made, None
