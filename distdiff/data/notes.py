"""Tells the user, in one line, what was left out of a dataset, or assumed about it.

Neither is an error, but the user is always told.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from distdiff.console.progress import console
from distdiff.wording import printable


@dataclass(frozen=True)
class Note:
    """A message about a dataset, and all the files that the message concerns.

    `about` is what the message is about, unless it is about what was left out.
    """

    dataset: str
    message: str
    files: tuple[str, ...]
    about: str | None = None


_kept: list[list[Note]] = []


@contextmanager
def keeping() -> Iterator[list[Note]]:
    """Yields a list that collects the notes made in the block, for the caller to print.

    If an error ends the block, the notes are printed.
    """
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


def note(name: str, message: str, files: Sequence[str] = (), about: str | None = None) -> None:
    """Prints `message` as one line about the dataset `name`.

    Inside `keeping`, the message is collected instead, together with the `files` that it concerns.
    """
    made = Note(printable(name), message, tuple(map(printable, files)), about)
    if _kept:
        _kept[-1].append(made)
    else:
        _print(made)


def _print(made: Note) -> None:
    console.print(f"dataset {made.dataset}: {made.message}")
