"""Locks for any file system, each held by one process at a time; a process that dies does not keep its lock."""

import errno
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from filelock import FileLock, LeaseCompromise, SoftFileLease, Timeout

from distdiff.console.progress import announce

LEASE = ".lease"  # added to a lock's name if the file system has no locks; the file of this name is then the lock
LEASE_SECONDS = 180.0  # a lease expires if not renewed for so long; its holder renews it every third of this time
NO_LOCKS = {errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP}

__all__ = ["LEASE", "LEASE_SECONDS", "Timeout", "forget", "held", "held_once_free"]


@contextmanager
def held(path: Path | str, timeout: float = -1) -> Iterator[None]:
    """Holds the lock `path` inside the block.

    Raises `Timeout` if another process keeps the lock for more than `timeout` seconds; -1 means to wait forever.

    The lock is a file lock of the operating system, which frees it when its process ends in any way. On a file system
    without locks, the lock is a lease: a file that only one process can create, that names this process and its
    host, and that the process renews regularly. A lease of a dead process on this host is taken over at once. A lease
    of another host is taken over once it has not been renewed for `LEASE_SECONDS`.
    """
    if not Path(path).parent.is_dir():  # FileLock would make the directory, even one that was removed on purpose
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
    lock = FileLock(path, fallback_to_soft=False)
    try:
        lock.acquire(timeout=timeout)
    except (OSError, NotImplementedError) as error:
        if isinstance(error, OSError) and error.errno not in NO_LOCKS:  # Timeout is an OSError too
            raise
        lock = _lease(Path(f"{path}{LEASE}"), timeout)
    try:
        yield
    finally:
        lock.release()


@contextmanager
def held_once_free(path: Path | str, waiting: str) -> Iterator[None]:
    """Holds the lock `path` inside the block. While another process keeps it, prints the line `waiting` and waits."""
    with ExitStack() as holding:
        try:
            holding.enter_context(held(path, timeout=0))
        except Timeout:
            announce(waiting)
            holding.enter_context(held(path))
        yield


def _lease(marker: Path, timeout: float) -> SoftFileLease:
    lease = SoftFileLease(marker, lease_duration=LEASE_SECONDS, on_compromise=_lost)
    while True:
        seen = _look(marker)
        patience = timeout
        if 0 <= timeout < LEASE_SECONDS and seen is not None and _silent(marker, seen):
            announce(f"{marker}: no sign of life from its holder; watching it for {LEASE_SECONDS:g} s")
            patience = LEASE_SECONDS * 1.1
        elif timeout < 0:
            patience = LEASE_SECONDS * 1.1
        try:
            lease.acquire(timeout=patience)
        except Timeout:
            # On file systems that cannot exchange two names, filelock leaves a dead holder's file. If that file has not
            # changed for longer than a lease lasts, it is removed here.
            unchanged = seen is not None and _look(marker) == seen and patience > LEASE_SECONDS
            if not (unchanged and _remove(marker, seen)) and timeout >= 0:
                raise
        else:
            return lease


def _look(marker: Path) -> tuple[int, int] | None:
    try:
        found = marker.lstat()
    except FileNotFoundError:
        return None
    return found.st_ino, found.st_mtime_ns


def _silent(marker: Path, seen: tuple[int, int]) -> bool:
    """Whether the lease was last renewed more than `LEASE_SECONDS` ago, by the file system's own clock."""
    clock = marker.with_name(f"{marker.name}.clock-{os.getpid()}")
    clock.touch()
    now = clock.stat().st_mtime_ns
    clock.unlink(missing_ok=True)
    return now - seen[1] > LEASE_SECONDS * 1e9


def _remove(marker: Path, seen: tuple[int, int]) -> bool:
    """Removes `marker` if it is still the file `seen`; another file is left. Returns whether `seen` is gone."""
    aside = marker.with_name(f"{marker.name}.dead-{os.getpid()}")
    try:
        marker.rename(aside)
    except FileNotFoundError:
        return True
    if gone := _look(aside) == seen:
        aside.unlink()
    else:
        try:
            os.link(aside, marker)
        except FileExistsError:
            pass
        except (OSError, NotImplementedError):  # the file system has no hard links
            if not marker.exists():
                aside.rename(marker)
        aside.unlink(missing_ok=True)
    return gone


def _lost(loss: LeaseCompromise) -> None:
    """Ends this process between batches, as SIGTERM does, because another process has the lease now, or may have it."""
    announce(f"{loss.lock_file}: the lease is lost ({loss.reason}); stopping")
    if sys.platform == "win32":  # where os.kill would end this process at once
        signal.raise_signal(signal.SIGTERM)
    else:  # reaches the main thread even while it waits
        os.kill(os.getpid(), signal.SIGTERM)


def forget(path: Path) -> None:
    """Removes the lock file `path` if it is there.

    Windows does not remove a file that is open, and a lock that is held is an open file. The file is then left, without
    harm: a lock is free once nobody holds it, whether its file is there or not.
    """
    with suppress(PermissionError):
        path.unlink(missing_ok=True)
