"""What a reader leaves out, said once in a line: never fatal, never silent."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from distdiff.console.progress import console
from distdiff.wording import printable


@dataclass(frozen=True)
class Note:
    """What is said of a dataset, and all the files that it is about."""

    dataset: str
    message: str
    files: tuple[str, ...]


_kept: list[list[Note]] = []


@contextmanager
def keeping() -> Iterator[list[Note]]:
    """The notes that are made within, for the caller to print; printed here where an error ends the block."""
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
    """One line about the dataset `name`; names of files are printed as they are."""
    made = Note(printable(name), message, tuple(map(printable, files)))
    if _kept:
        _kept[-1].append(made)
    else:
        _print(made)


def _print(made: Note) -> None:
    console.print(f"dataset {made.dataset}: {made.message}")
