"""Locks that one process at a time can hold, on any file system, and that do not outlive their holder."""

import errno
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, LeaseCompromise, SoftFileLease, Timeout

from distdiff.console.progress import announce

LEASE = ".lease"  # added to a lock's name where the system has no locks: the file is the lock
LEASE_SECONDS = 180.0  # a lease expires after so long without a sign of life; its holder gives one every third of it
NO_LOCKS = {errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP}

__all__ = ["LEASE", "LEASE_SECONDS", "Timeout", "held"]


@contextmanager
def held(path: Path | str, timeout: float = -1) -> Iterator[None]:
    """Holds the lock `path`; raises `Timeout` if another process holds it for over `timeout` seconds (-1: waits forever).

    It is the system's lock, which ends with its holder, however the holder ends. On a file system without locks it is a lease:
    a file made exclusively, which names its holder's host and process and is renewed regularly. A lease of a dead process on
    this host is taken over at once, and a lease of another host after it was not renewed for `LEASE_SECONDS`.
    """
    if not Path(path).parent.is_dir():  # FileLock would make it, and bring a removed directory back in part
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
            # Where two names cannot be exchanged, filelock leaves a dead holder's file; here it was watched long enough.
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
    """Whether the last sign of life is older than a lease lasts, by the file system's own clock."""
    clock = marker.with_name(f"{marker.name}.clock-{os.getpid()}")
    clock.touch()
    now = clock.stat().st_mtime_ns
    clock.unlink(missing_ok=True)
    return now - seen[1] > LEASE_SECONDS * 1e9


def _remove(marker: Path, seen: tuple[int, int]) -> bool:
    """Removes the file that was seen; another file that has taken its place meanwhile is put back."""
    aside = marker.with_name(f"{marker.name}.dead-{os.getpid()}")
    try:
        marker.rename(aside)
    except FileNotFoundError:
        return True
    if gone := _look(aside) == seen:
        aside.unlink()
    else:
        with suppress(FileExistsError):
            os.link(aside, marker)
        aside.unlink()
    return gone


def _lost(loss: LeaseCompromise) -> None:
    """Ends this process as SIGTERM does, between batches: another process has the lease now, or may have it."""
    announce(f"{loss.lock_file}: the lease is lost ({loss.reason}); stopping")
    os.kill(os.getpid(), signal.SIGTERM)
