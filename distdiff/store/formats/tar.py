"""Members of a tar as bytes, so that an archive can grow in place and be cut back to any member's end."""

import tarfile

BLOCK = tarfile.BLOCKSIZE
END = bytes(2 * BLOCK)  # what closes an archive


def header(name: str, size: int) -> bytes:
    """The blocks before a member's content; no time or owner, so equal members are equal bytes."""
    info = tarfile.TarInfo(name)
    info.size = size
    return info.tobuf(tarfile.GNU_FORMAT, "utf-8", "surrogateescape")


def member(name: str, content: bytes) -> bytes:
    """A member, padded to whole blocks."""
    return header(name, len(content)) + content + bytes(-len(content) % BLOCK)
