"""Tells the user, in one line, what was left out of a dataset. This is not an error, but it is never silent."""

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
    """Yields a list of notes made in the block, for the caller to print. If an error ends the block, prints them."""
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
    """Prints one line about the dataset `name` and the `files` concerned; inside `keeping`, collects it instead."""
    made = Note(printable(name), message, tuple(map(printable, files)))
    if _kept:
        _kept[-1].append(made)
    else:
        _print(made)


def _print(made: Note) -> None:
    console.print(f"dataset {made.dataset}: {made.message}")
