"""Members of a tar as bytes, so that an archive can be appended to, or cut off after any member."""

import tarfile

BLOCK = tarfile.BLOCKSIZE
END = bytes(2 * BLOCK)  # the end mark of an archive


def header(name: str, size: int) -> bytes:
    """The blocks before a member's content.

    The blocks name no time and no owner, so that equal members have equal bytes.
    """
    info = tarfile.TarInfo(name)
    info.size = size
    return info.tobuf(tarfile.GNU_FORMAT, "utf-8", "surrogateescape")


def is_header(block: bytes) -> bool:
    """Whether a block is the header of a member."""
    return block[257:262] == b"ustar"


def member(name: str, content: bytes) -> bytes:
    """A member with its header, padded to whole blocks."""
    return header(name, len(content)) + content + bytes(-len(content) % BLOCK)
