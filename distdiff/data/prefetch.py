"""Work on many images by several threads: decoding, resizing and hashing release the interpreter's lock.

Threads, because a reader's closures could not go to processes, and because a process would have to send its pixels back.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

from distdiff.ranks.world import world

S = TypeVar("S")
T = TypeVar("T")
AHEAD = 4  # items a thread that are made, or being made, before they are asked for


@contextmanager
def threads(num_workers: int | None) -> Iterator[ThreadPoolExecutor]:
    """So many threads, or a fair share; what they have not begun when the block is left is dropped."""
    pool = ThreadPoolExecutor(num_workers or world().fair_share(), thread_name_prefix="images")
    try:
        yield pool
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def prefetched(make: Callable[[S], T], items: Iterable[S], num_workers: int | None = None) -> Iterator[T]:
    """`make(item)` of all items, in order, made a few items ahead by `num_workers` threads; None: a fair share.

    An exception is raised where its item would have come.

    >>> list(prefetched(lambda number: number**2, range(4), num_workers=2))
    [0, 1, 4, 9]
    """
    workers = num_workers or world().fair_share()
    with threads(workers) as pool:
        waiting: deque[Future[T]] = deque()
        for item in items:
            waiting.append(pool.submit(make, item))
            if len(waiting) > AHEAD * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
