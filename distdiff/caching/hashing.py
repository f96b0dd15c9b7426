"""The hash of a large file's whole content, computed only once unless the file changes."""

import hashlib
import json
import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from distdiff.caching.positions import PositionedFile

PART = 64 * 2**20  # bytes that a thread hashes at a time; another size gives another hash
PIECE = 2**20  # bytes that are read at once
THREADS = 8
WORTH_SAYING = 2 * 2**30  # bytes; hashing so large a file takes seconds, or a minute from a network disk
SETTLED = 2.0  # seconds; a file that changed more recently may change again without a new time of change


def content_hash(path: Path) -> str:
    """64 hex digits that depend on every byte of the file `path` and on nothing else: a copy has the same hash.

    Several threads hash parts of 64 MiB each (1 GB/s measured on two busy cores); the result is the SHA-256 of these
    parts' SHA-256 digests. Usually the disk limits the speed. Afterwards, the file is in the system's
    file cache, so that loading it is fast. The hash is remembered below HF_HOME with the file's inode, size and times
    of change, and is used again only while all of these are the same. So a file is hashed by the first run that needs
    it, and again if it has changed. No hash is remembered if HF_HOME cannot be written.

    Raises `OSError` if the file cannot be read.
    """
    before = _stamp(path)
    memory = _memory(path)
    with suppress(OSError, ValueError, KeyError, TypeError):
        known = json.loads(memory.read_text(encoding="utf-8"))
        if known["stamp"] == before:
            return str(known["sha256"])
    digest = _hash(path)
    settled = time.time() - max(before["modified"], before["changed"]) / 1e9 > SETTLED
    if settled and _stamp(path) == before:
        _remember(memory, {"path": str(path.resolve()), "stamp": before, "sha256": digest})
    return digest


def _hash(path: Path) -> str:
    size = path.stat().st_size
    if size >= WORTH_SAYING:
        from distdiff.console.progress import announce  # importing this takes a second

        announce(f"identifying {path} by its content ({size / 1e9:.1f} GB); this is done once")
    with open(path, "rb", buffering=0) as file, ThreadPoolExecutor(min(THREADS, os.cpu_count() or 1)) as pool:
        positioned = PositionedFile(file)
        parts = pool.map(lambda start: _hash_part(positioned, start), range(0, size, PART))
        return hashlib.sha256(b"".join(parts)).hexdigest()


def _hash_part(file: PositionedFile, start: int) -> bytes:
    digest = hashlib.sha256()
    for piece in _pieces(file, start):
        digest.update(piece)
    return digest.digest()


def _pieces(file: PositionedFile, start: int) -> Iterator[bytes]:
    position = start
    while position < start + PART and (piece := file.read(min(PIECE, start + PART - position), position)):
        yield piece
        position += len(piece)


def _stamp(path: Path) -> dict[str, int]:
    stat = path.stat()
    return {
        "inode": stat.st_ino,
        "size": stat.st_size,
        "modified": stat.st_mtime_ns,
        "changed": stat.st_ctime_ns,
    }


def _memory(path: Path) -> Path:
    from huggingface_hub import constants

    name = hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:32]
    return Path(constants.HF_HOME, "distdiff", "hashes", f"{name}.json")


def _remember(memory: Path, content: dict[str, object]) -> None:
    aside = memory.with_name(f".{memory.name}-{os.getpid()}")
    with suppress(OSError):
        memory.parent.mkdir(parents=True, exist_ok=True)
        try:
            aside.write_text(json.dumps(content), encoding="utf-8")
            aside.replace(memory)
        finally:
            aside.unlink(missing_ok=True)
