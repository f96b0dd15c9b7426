"""Ends a command with a one-line message if a disk is full, gone or read-only."""

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from distdiff.errors import ONWARD, UserError, first_line
from distdiff.locking import Timeout


@contextmanager
def writing_to(folder: Path | str, key: str) -> Iterator[None]:
    """Turns system errors from reading or writing below `folder`, the value of the key `key`, into a `UserError`."""
    try:
        yield
    except Timeout:  # a subclass of OSError, but not an error of the system
        raise
    except OSError as error:
        said = error.strerror or first_line(error)
        if Path(folder).is_dir():
            onward = f"{ONWARD} once it can"
        else:
            onward = "there is no such directory now; the same command makes it anew where it can"
        raise UserError(f"{key}={folder}: cannot write there ({said}); {onward}") from None


def on_disk(method: Callable[..., Any]) -> Callable[..., Any]:
    """Decorates a method that uses files below `self.path`: it then runs in `writing_to(self.path, self.key)`."""

    @functools.wraps(method)
    def wrapped(self: Any, *arguments: Any, **keywords: Any) -> Any:
        with writing_to(self.path, self.key):
            return method(self, *arguments, **keywords)

    return wrapped
