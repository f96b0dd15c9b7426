"""What a reader leaves out, said once in a line: never fatal, never silent."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from distdiff.console.progress import console
from distdiff.data.words import printable


@dataclass(frozen=True)
class Note:
    """What was said, and all the files that it is about."""

    message: str
    files: tuple[str, ...]


_kept: list[list[Note]] = []


@contextmanager
def keeping() -> Iterator[list[Note]]:
    """The notes that are made within, besides being printed."""
    notes: list[Note] = []
    _kept.append(notes)
    try:
        yield notes
    finally:
        _kept.pop()


def note(name: str, message: str, files: Sequence[str] = ()) -> None:
    """One line about the dataset `name`; names of files are printed as they are."""
    for notes in _kept:
        notes.append(Note(message, tuple(map(printable, files))))
    console.print(f"dataset {printable(name)}: {message}", markup=False)
