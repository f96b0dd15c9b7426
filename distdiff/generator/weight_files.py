"""Why a weight file cannot be read, in plain words."""

import json
import struct
from pathlib import Path

LFS_MARK = b"version https://git-lfs.github.com/spec/"


def damage(file: Path) -> str | None:
    """What is wrong with a weight file, or None if nothing obvious is.

    A `.safetensors` file begins with 8 bytes that hold the length of its header, which lists the places of all tensors.
    """
    size = file.stat().st_size
    if not size:
        return "it is empty"
    with open(file, "rb") as content:
        start = content.read(len(LFS_MARK))
        if start == LFS_MARK:
            return "it is a git-lfs pointer, not the weights themselves (git lfs pull gets them)"
        if file.suffix != ".safetensors":
            return None
        content.seek(0)
        try:
            (length,) = struct.unpack("<Q", content.read(8))
            if 8 + length > size:
                return "it is no safetensors file, or a part of it is missing"
            tensors = json.loads(content.read(length))
            end = max(
                (entry["data_offsets"][1] for name, entry in tensors.items() if name != "__metadata__"), default=0
            )
        except (struct.error, ValueError, KeyError, TypeError, AttributeError, IndexError):
            return "it is no safetensors file"
    if 8 + length + end > size:
        return f"it is cut short: {size:,} bytes of {8 + length + end:,}"
    return None
