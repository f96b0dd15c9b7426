"""Locks on an expanded dataset's directory, held by one process, or by several processes that make one share each."""

import json
import os
import re
import socket
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np

from distdiff.errors import UserError
from distdiff.locking import Timeout, forget, held
from distdiff.writing import writing_to

LOCKS = ".share-*.lock"
LOCK = ".lock"
OUTPUT_DIR = "expansion.output_dir"  # the key that error messages name by default


@dataclass(frozen=True)
class Share:
    """The part of a plan that one process makes.

    The split has every `total`-th item of the plan, beginning with item `split`. The share has every `ranks`-th item of
    this split, beginning with item `rank`. Items are counted from 0.
    """

    split: int = 0
    total: int = 1
    rank: int = 0
    ranks: int = 1

    def of(self, indices: np.ndarray, numbers: np.ndarray | None = None) -> np.ndarray:
        """Returns the elements of `indices` (m,), indices into the plan, whose items belong to this share.

        If `numbers` (m,) is given, an item's number, not its index, decides to which share the item belongs. Items with
        the same number are then in the same share.
        """
        numbers = indices if numbers is None else numbers
        return indices[(numbers % self.total == self.split) & (numbers // self.total % self.ranks == self.rank)]

    @property
    def whole(self) -> "Share":
        """The whole split, which the ranks make together, as a single share."""
        return Share(self.split, self.total)

    @property
    def name(self) -> str:
        return f"{self.split}-of-{self.total}" + (f"-rank-{self.rank}-of-{self.ranks}" if self.ranks > 1 else "")

    @property
    def words(self) -> str:
        return "this directory" if self.total == 1 else f"split {self.split} of {self.total} of this directory"


@contextmanager
def working_on(directory: Path, share: Share, key: str = OUTPUT_DIR) -> Iterator[None]:
    """Holds `share` of a directory. Raises `UserError` if another process holds this or an overlapping share.

    `key` is the configuration key that gave the directory. The lock ends with the process that holds it, even if the
    process is killed.
    """
    path = directory / LOCKS.replace("*", share.name)
    with ExitStack() as holding:
        with writing_to(directory, key), locked(directory):  # processes that start together check in turn
            _check_others(directory, share, key)
            holding.enter_context(_held(path, directory, share.words, key))
            holder = {"host": socket.gethostname(), "process": os.getpid(), "since": _now()}
            _holder(path).write_text(json.dumps(holder))
        yield
        _holder(path).unlink(missing_ok=True)


def _check_others(directory: Path, share: Share, key: str) -> None:
    """Raises `UserError` if another process holds an overlapping share. Locks of processes that ended are removed."""
    for path in sorted(directory.glob(LOCKS)):
        other = _share(path)
        if other.total != share.total:
            words = "this directory, in shares of another size"
        elif other.split == share.split and other.ranks != share.ranks:
            words = share.words
        else:
            continue
        with _held(path, directory, words, key):
            forget(path)
            _holder(path).unlink(missing_ok=True)


def locked(directory: Path) -> AbstractContextManager[None]:
    """A lock to hold while changing files that all processes share."""
    return held(directory / LOCK)


def forget_shares(directory: Path) -> None:
    """Removes the lock files of the shares of a finished directory."""
    for path in [*directory.glob(LOCKS), *directory.glob(f"{LOCKS}.holder")]:
        forget(path)


@contextmanager
def _held(path: Path, directory: Path, words: str, key: str) -> Iterator[None]:
    with ExitStack() as stack:
        try:
            with writing_to(directory, key):
                stack.enter_context(held(path, timeout=0))
        except Timeout:
            raise UserError(f"{key}={directory}: another process{_who(path)} is at work on {words}") from None
        yield


def _share(lock: Path) -> Share:
    """The share to which a lock file belongs."""
    numbers = list(map(int, re.findall(r"\d+", lock.name)))
    return Share(*numbers)


def _who(path: Path) -> str:
    try:
        holder = json.loads(_holder(path).read_text())
        return f" ({holder['process']} on {holder['host']}, since {holder['since']})"
    except (OSError, ValueError, KeyError):
        return ""


def _holder(path: Path) -> Path:
    return path.with_name(f"{path.name}.holder")


def _now() -> str:
    return datetime.now().isoformat(sep=" ", timespec="seconds")
