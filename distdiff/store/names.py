"""File and folder names that any file system accepts and that `datasets` leaves unchanged."""

import re
from collections.abc import Iterable
from hashlib import sha256
from urllib.parse import quote

# `datasets` assigns a file to a split if its name or folder contains one of these words, and drops all other files.
SPLIT_WORDS = ("training", "train", "validation", "valid", "val", "dev", "testing", "test", "evaluation", "eval")
_SPLIT_WORD = re.compile(rf"(?<![^-._ 0-9])({'|'.join(SPLIT_WORDS)})(?=[-._ 0-9]|$)", re.IGNORECASE)
_MAX_BYTES, _MAX_CLASS_BYTES = 180, 50
# Windows refuses files of these names, whatever their extension.
_RESERVED = re.compile(r"(con|prn|aux|nul|com[0-9¹²³]|lpt[0-9¹²³]|conin\$|conout\$)(?= *(?:\.|$))", re.IGNORECASE)
SOURCELESS = "prompt"  # stands for the source in the file names of images without a source
_UNSAFE = re.compile(r'[/\\:*?"<>|%~\[\]\x00-\x1f\x7f]')


def name_from_class(class_name: str, key: str) -> str:
    """The name that a source of another class has in a class folder.

    `key` is the source's key, and `class_name` is the source's class. No source of the folder's own class can have this
    name.

    >>> name_from_class("cat", "a.png")
    'cat~~a.png'
    """
    return f"{_shortened(safe_name(class_name), class_name, _MAX_CLASS_BYTES)}~~{safe_name(key)}"


def safe_name(name: str) -> str:
    """`name` without separators and reserved characters, and with `~` after each of `SPLIT_WORDS`.

    A name that Windows reserves for a device also gets a `~`. Distinct names stay distinct.

    >>> safe_name("train"), safe_name("x_val_2.png"), safe_name("../a/b.png"), safe_name("training_set")
    ('train~', 'x_val~_2.png', '%2E.%2Fa%2Fb.png', 'training~_set')
    >>> safe_name("nul"), safe_name("Aux.png"), safe_name("console"), safe_name("end."), safe_name("end ")
    ('nul~', 'Aux~.png', 'console', 'end%2E', 'end%20')
    """
    safe = _UNSAFE.sub(lambda match: quote(match.group(), safe="") if match.group() != "~" else "%7E", name)
    if safe.startswith("."):
        safe = "%2E" + safe[1:]
    if safe.endswith((" ", ".")):
        safe = safe[:-1] + quote(safe[-1], safe="").replace(".", "%2E")
    if reserved := _RESERVED.match(safe):
        safe = f"{reserved[0]}~{safe[reserved.end() :]}"
    safe = _SPLIT_WORD.sub(r"\1~", safe)
    return _shortened(safe, name, _MAX_BYTES)


def differing_in_case(file_names: Iterable[str]) -> tuple[str, str] | None:
    """Two of the paths `<folder>/<file>`, or two of their folders, that only the case of letters tells apart.

    >>> differing_in_case(["cat/a.png", "dog/a.png", "cat/A.png"]), differing_in_case(["cat/a.png", "Cat/b.png"])
    (('cat/a.png', 'cat/A.png'), ('cat', 'Cat'))
    """
    seen: dict[str, str] = {}
    for file_name in file_names:
        for name in (file_name.rpartition("/")[0], file_name):
            if (other := seen.setdefault(name.casefold(), name)) != name:
                return other, name
    return None


def _shortened(safe: str, name: str, most: int) -> str:
    """`safe`, shortened if it has more than `most` bytes.

    A shortened name is the beginning of `safe` and a hash of `name`, the name that `safe` was made from.
    """
    encoded = safe.encode()
    if len(encoded) <= most:
        return safe
    return encoded[: most - 17].decode(errors="ignore") + "-" + sha256(name.encode()).hexdigest()[:16]
