"""Numbers, times and file names as messages show them."""

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


def duration(seconds: float, digits: int = 3) -> str:
    """A length of time, with so many significant digits.

    >>> duration(1), duration(42), duration(600), duration(36_000), duration(864_000), duration(738, 2)
    ('1 second', '42 seconds', '10 minutes', '10 hours', '10 days', '12 minutes')
    """
    for unit, length in (("day", 2 * 86_400), ("hour", 5_400), ("minute", 90)):
        if seconds >= length:
            number = seconds / {"day": 86_400, "hour": 3_600, "minute": 60}[unit]
            return f"{float(f'{number:.{digits}g}'):g} {unit}s"
    return f"{seconds:.2g} second{'' if seconds == 1 else 's'}"


def printable(name: str) -> str:
    """A file name as one line of valid text: bytes that are not UTF-8 and control characters become escapes.

    >>> printable("a\\nb\\udcff")
    'a\\\\nb\\\\xff'
    """
    text = name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return "".join(
        char if char.isprintable() or char in JOINERS else char.encode("unicode_escape").decode() for char in text
    )
