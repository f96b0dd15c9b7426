"""Reads the text and the JSON in files that users give, and says in plain words why it cannot."""

import json
from pathlib import Path
from typing import Any

from distdiff.errors import UserError, first_line
from distdiff.placeholders import placeholder, unread

KINDS = {dict: "an object, {…}", list: "a list, […]"}


class UnreadableFile(UserError):
    """A file that cannot be read. The message names its path, but `reason` does not."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path, self.reason = path, reason


def read_text(path: Path) -> str:
    """The text of a UTF-8 file. Raises `UnreadableFile`."""
    if (instead := placeholder(path)) is not None:
        raise UnreadableFile(path, instead)
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UnreadableFile(path, f"it is no text in UTF-8 ({first_line(error)}); save it as UTF-8") from None
    except OSError as error:
        raise UnreadableFile(path, unread(error)) from None
    if "\0" in text:
        raise UnreadableFile(path, "it is no text in UTF-8: it holds NUL characters; save it as UTF-8")
    return text


def read_json(path: Path, *kinds: type) -> Any:
    """The content of a JSON file, which is of one of `kinds` (by default an object). Raises `UnreadableFile`."""
    text = read_text(path)
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UnreadableFile(path, f"it is no JSON, or a part of it is missing ({first_line(error)})") from None
    kinds = kinds or (dict,)
    if not isinstance(content, kinds):
        raise UnreadableFile(path, f"it does not hold {' or '.join(KINDS[kind] for kind in kinds)}")
    return content


def json_fault(path: Path, needed: str | None = None) -> str | None:
    """Why a JSON file cannot be used: it cannot be read, or its object lacks the entry `needed`. None if it can."""
    try:
        content = read_json(path)
    except UnreadableFile as error:
        return error.reason
    return f"it has no {needed}, so it is another file" if needed is not None and needed not in content else None
