"""Recognises small files that stand in the place of a large one that was never fetched."""

from pathlib import Path
from typing import BinaryIO

LFS = b"version https://git-lfs.github.com/spec/"
ANNEX = (b"/annex/objects/", b"../.git/annex/objects/", b".git/annex/objects/")
PAGE = (b"<!doctype html", b"<html")
START = 64  # bytes that tell one from another


def pointer(file: Path | str | BinaryIO) -> str | None:
    """What a file or stream is in place of its content, and how to get the content; None if it is no such file.

    An empty file is one too: it is what a broken download leaves.
    """
    if isinstance(file, (Path, str)):
        with open(file, "rb") as opened:
            start = opened.read(START)
    else:
        file.seek(0)
        start = file.read(START)
    if not start:
        return "the file is empty"
    if start.startswith(LFS):
        return "it is a git-lfs pointer, not the file itself (git lfs pull gets it)"
    if start.startswith(ANNEX):
        return "it is a git-annex pointer, not the file itself (git annex get gets it)"
    if start.lstrip().lower().startswith(PAGE):
        return "it is a web page, so the download went wrong"
    return None
