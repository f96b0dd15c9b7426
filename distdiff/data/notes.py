"""What a reader leaves out, said once in a line: never fatal, never silent."""

from collections.abc import Sequence

from distdiff.console.progress import console

SHOWN = 3


def note(name: str, message: str) -> None:
    """One line about the dataset `name`; names of files are printed as they are."""
    console.print(f"dataset {printable(name)}: {message}", markup=False)


def some(names: Sequence[object]) -> str:
    """The first few of `names`, and how many more there are."""
    shown = ", ".join(printable(str(name)) for name in names[:SHOWN])
    return shown + (f" and {len(names) - SHOWN:,} more" if len(names) > SHOWN else "")


def printable(name: str) -> str:
    """A file's name as valid text of one line: bytes that are no UTF-8 and control characters as escapes.

    >>> printable("a\\nb\\udcff")
    'a\\\\nb\\\\xff'
    """
    text = name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)
