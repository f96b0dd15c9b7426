"""Tells the user in one line what a reader left out: this is never an error, and never silent."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from distdiff.console.progress import console
from distdiff.wording import printable


@dataclass(frozen=True)
class Note:
    """A message about a dataset, and all the files that it concerns."""

    dataset: str
    message: str
    files: tuple[str, ...]


_kept: list[list[Note]] = []


@contextmanager
def keeping() -> Iterator[list[Note]]:
    """Collects the notes made inside the block for the caller to print; prints them itself if an error ends the block."""
    notes: list[Note] = []
    _kept.append(notes)
    try:
        yield notes
    except BaseException:
        for kept in notes:
            _print(kept)
        raise
    finally:
        _kept.pop()


def note(name: str, message: str, files: Sequence[str] = ()) -> None:
    """Prints or collects one line about the dataset `name` and the `files` that it concerns."""
    made = Note(printable(name), message, tuple(map(printable, files)))
    if _kept:
        _kept[-1].append(made)
    else:
        _print(made)


def _print(made: Note) -> None:
    console.print(f"dataset {made.dataset}: {made.message}")
