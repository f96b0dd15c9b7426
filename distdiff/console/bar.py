"""A progress bar around a loop that is long for large datasets."""

from collections.abc import Iterator, Sequence
from typing import TypeVar

from distdiff.console.progress import stage_progress

T = TypeVar("T")
WORTH_A_BAR = 500  # items; a shorter loop gets no bar


def with_progress(items: Sequence[T], title: str, unit: str = "images") -> Iterator[T]:
    """Yields the items one by one; if there are many, shows a progress bar named `title`."""
    if len(items) < WORTH_A_BAR:
        yield from items
        return
    with stage_progress() as progress:
        bar = progress.add_task(title, total=len(items), unit=unit)
        for item in items:
            yield item
            progress.advance(bar)
