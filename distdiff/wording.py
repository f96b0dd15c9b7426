"""Numbers and file names as messages show them."""

from collections.abc import Sequence

SHOWN = 3
JOINERS = "\u200c\u200d"  # invisible characters that belong to words of some scripts, and to emoji


def some(names: Sequence[object]) -> str:
    """The first few of `names` as text, and how many more there are."""
    shown = ", ".join(printable(str(name)) for name in names[:SHOWN])
    return shown + (f" and {len(names) - SHOWN:,} more" if len(names) > SHOWN else "")


def counted(number: int, noun: str) -> str:
    """A number with its noun in the singular or plural.

    >>> counted(1, "class"), counted(2000, "class"), counted(2, "file")
    ('1 class', '2,000 classes', '2 files')
    """
    plural = f"{noun}es" if noun.endswith("s") else f"{noun}s"
    return f"{number:,} {noun if number == 1 else plural}"


def printable(name: str) -> str:
    """A file name as one line of valid text: bytes that are not UTF-8 and control characters become escapes.

    >>> printable("a\\nb\\udcff")
    'a\\\\nb\\\\xff'
    """
    text = name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return "".join(
        char if char.isprintable() or char in JOINERS else char.encode("unicode_escape").decode() for char in text
    )
