"""A progress bar around a loop that is long for large datasets."""

from collections.abc import Iterator, Sequence
from typing import TypeVar

from distdiff.console.stages import display

T = TypeVar("T")
WORTH_A_BAR = 500  # items; a shorter loop is shown only if it lasts, for instance because its images are large


def with_progress(items: Sequence[T], title: str, unit: str = "images") -> Iterator[T]:
    """Yields the items one by one, and shows a progress bar named `title`; if there are few, only if the loop lasts."""
    with display.stage(title, len(items), unit, brief=len(items) < WORTH_A_BAR) as bar:
        for item in items:
            yield item
            bar.advance()
