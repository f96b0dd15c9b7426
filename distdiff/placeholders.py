"""Recognises what stands in the place of a file: a pointer to content that was never fetched, a web page, nothing."""

import os
import re
from pathlib import Path
from typing import BinaryIO

from distdiff.errors import first_line

LFS = b"version https://git-lfs.github.com/spec/"
ANNEX = re.compile(rb"(?:\.\./)*(?:\.git)?/?annex/objects/")
PAGE = re.compile(rb"<!doctype html|<(?:html|head|body)\b|<!--|<\?xml(?!.*<svg\b)", re.DOTALL)
BOM = b"\xef\xbb\xbf"
START = 512  # bytes that tell one from another
FROM_ANNEX = "not the file itself (git annex get gets it)"


def placeholder(file: Path | str | BinaryIO) -> str | None:
    """What a file or stream is in place of its content, and how to get the content; None if it is no such file.

    An empty file is one too, as a broken download leaves it, and so is a path at which nothing can be read: a broken
    link, a folder, or a file without permission.
    """
    if not isinstance(file, (Path, str)):
        file.seek(0)
        return _said_by(file.read(START))
    try:
        with open(file, "rb") as opened:
            return _said_by(opened.read(START))
    except FileNotFoundError:
        return _broken_link(file) if os.path.islink(file) else "there is no such file"
    except OSError as error:
        return "it is a folder, not a file" if os.path.isdir(file) else unread(error)


def unread(error: OSError) -> str:
    """Why a file cannot be read, as the system says it: `permission denied`."""
    return error.strerror.lower() if error.strerror else first_line(error)


def absent(path: Path | str, otherwise: str = "no such file or folder") -> str:
    """What to say of a path at which there is nothing: where its link leads, or `otherwise` if it is no link."""
    return _broken_link(path) if os.path.islink(path) else otherwise


def _said_by(start: bytes) -> str | None:
    if not start:
        return "it is empty"
    if start.startswith(LFS):
        return "it is a git-lfs pointer, not the file itself (git lfs pull gets it)"
    if ANNEX.match(start):
        return f"it is a git-annex pointer, {FROM_ANNEX}"
    if PAGE.match(start.removeprefix(BOM).lstrip().lower()):
        return "it is a web page, not the file itself (the link of a page was saved, or a download went wrong)"
    return None


def _broken_link(file: Path | str) -> str:
    target = os.fsencode(os.readlink(file)).replace(b"\\", b"/")
    if ANNEX.match(target):
        return f"it is a link of git-annex to content that is not here, {FROM_ANNEX}"
    return "it is a link to a file that is not there"
