"""What a reader leaves out, said once in a line: never fatal, never silent."""

from distdiff.console.progress import console
from distdiff.data.words import printable


def note(name: str, message: str) -> None:
    """One line about the dataset `name`; names of files are printed as they are."""
    console.print(f"dataset {printable(name)}: {message}", markup=False)
