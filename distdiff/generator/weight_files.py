"""Why a weight file cannot be read, in plain words."""

import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from distdiff.data.reading.pointers import LFS

if TYPE_CHECKING:
    import torch

WHOLE = ("BOOL", "U8", "I8", "U16", "I16", "U32", "I32", "U64", "I64")  # types of safetensors
START = 512  # bytes that are looked at to tell a page or a text from weights


def damage(file: Path) -> str | None:
    """What is wrong with a weight file, or None if nothing obvious is.

    A `.safetensors` file begins with 8 bytes that hold the length of its header, which lists the places of all tensors.
    """
    size = file.stat().st_size
    if not size:
        return "it is empty"
    with open(file, "rb") as content:
        start = content.read(START)
        if start.startswith(LFS):
            return "it is a git-lfs pointer, not the weights themselves (git lfs pull gets them)"
        if start.removeprefix(b"\xef\xbb\xbf").lstrip().lower().startswith((b"<!doctype", b"<html", b"<?xml")):
            return "it is a web page, not weights (a link to a file's page was saved instead of the file)"
        if file.suffix != ".safetensors":
            return "it is a text, not weights" if _is_text(start) else None
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


def quantised(file: Path) -> str | None:
    """Which tensor of a whole `.safetensors` file holds whole numbers in place of weights, or None if there is none.

    They would be taken for weights as they are. Positions and counters are whole numbers in good files too; they are no
    matrices, or their names say what they are.
    """
    with open(file, "rb") as content:
        tensors = json.loads(content.read(struct.unpack("<Q", content.read(8))[0]))
    for name, entry in tensors.items():
        if name != "__metadata__" and entry["dtype"] in WHOLE and len(entry["shape"]) > 1 and not name.endswith("_ids"):
            return f"{name} holds whole numbers ({entry['dtype']}): it is quantised, and only weights in floating point are read"
    return None


def not_finite(tensors: Mapping[str, "torch.Tensor"]) -> str | None:
    """Which tensor holds NaN or infinite values, which would make every image black, or None if all are finite."""
    for name, tensor in tensors.items():
        if not tensor.float().isfinite().all():
            return f"{name} holds values that are not finite"
    return None


def _is_text(start: bytes) -> bool:
    """Whether the beginning of a file is printable ASCII, as no archive or pickle of tensors is."""
    return all(byte in b"\t\n\r" or 32 <= byte < 127 for byte in start)
