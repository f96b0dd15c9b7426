"""Why a weight file cannot be read, in plain words."""

import json
import re
import struct
import zipfile
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from safetensors import SafetensorError, safe_open

from distdiff.errors import first_line
from distdiff.placeholders import placeholder
from distdiff.texts import json_fault, read_json

if TYPE_CHECKING:
    import torch

PICKLE, ARCHIVE = b"\x80", b"PK\x03\x04"  # how the two formats of `torch.save` begin
PIECE = re.compile(r"-\d+-of-\d+\.")
SHARD_INDEX = re.compile(r"\.(safetensors|bin)\.index\b.*\.json$")
WEIGHT_MAP = "weight_map"
WHOLE = ("BOOL", "U8", "I8", "U16", "I16", "U32", "I32", "U64", "I64")  # types of safetensors
START = 512  # bytes that are looked at to tell a text from weights


def damage(file: Path) -> str | None:
    """What is wrong with a weight file, or None if nothing obvious is.

    A `.safetensors` file begins with 8 bytes that hold the length of its header, which lists the places of all tensors.
    """
    if instead := placeholder(file):
        return instead
    size = file.stat().st_size
    with open(file, "rb") as content:
        start = content.read(START)
        if file.suffix != ".safetensors":
            return "it is a text, not weights" if _is_text(start) else _pickle_fault(file, start)
        content.seek(0)
        try:
            (length,) = struct.unpack("<Q", content.read(8))
            if 8 + length > size:
                return "it is no safetensors file, or a part of it is missing"
            tensors = json.loads(content.read(length))
            end = max(
                (entry["data_offsets"][1] for name, entry in tensors.items() if name != "__metadata__"), default=0
            )
        except (struct.error, ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError):
            return "it is no safetensors file"
    if 8 + length + end > size:
        return f"it is cut short: {size:,} bytes of {8 + length + end:,}"
    try:
        with safe_open(file, framework="numpy"):  # reads the header alone, and checks each of its entries
            return None
    except SafetensorError as error:
        return f"it is no safetensors file ({first_line(error)})"


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


def file_names(folder: Path) -> list[str]:
    """The sorted names of a folder's files, broken links, and folders that are called like files; none if it is none."""
    with suppress(OSError):
        return sorted(path.name for path in folder.iterdir() if not path.is_dir() or path.suffix)
    return []


def shards_fault(folder: Path, weights: Sequence[str], names: Collection[str]) -> str | None:
    """Why weights in several files cannot be loaded: a piece is missing, or the index that lists the pieces.

    `weights` are the files to be loaded, of all files `names` of the folder.
    """
    pieces = [name for name in weights if PIECE.search(name)]
    for index in (name for name in names if SHARD_INDEX.search(name)):
        if reason := json_fault(folder / index, WEIGHT_MAP):
            return f"{index}: {reason}"
        listed = read_json(folder / index)[WEIGHT_MAP]
        if not isinstance(listed, dict) or not all(isinstance(name, str) for name in listed.values()):
            return f"{index}: its {WEIGHT_MAP} does not map tensors to files"
        listed = {*listed.values()}
        if listed & {*weights} and (lacking := sorted(listed - {*names})):
            return f"{lacking[0]}: there is no such file, and {index} lists it"
        pieces = [name for name in pieces if name not in listed]
    if pieces and len(pieces) == len(weights):
        return f"{pieces[0]}: it is a piece of the weights, and the index that lists all pieces is missing"
    return None


def _pickle_fault(file: Path, start: bytes) -> str | None:
    """Why a file is none of `torch.save`: an archive with a pickle, or in old versions the pickle itself."""
    if start.startswith(PICKLE):
        return None
    if not start.startswith(ARCHIVE):
        return "it is no file of tensors"
    try:
        with zipfile.ZipFile(file) as archive:
            for member in archive.infolist():
                archive.open(member).close()  # reads the header alone, so this is quick
            names = archive.namelist()
    except (zipfile.BadZipFile, ValueError, RuntimeError, NotImplementedError, EOFError, struct.error) as error:
        return f"it is cut short or damaged ({first_line(error)})"
    return None if any(name.endswith("data.pkl") for name in names) else "it is an archive, but none of tensors"


def _is_text(start: bytes) -> bool:
    """Whether the beginning of a file is printable ASCII, as no archive or pickle of tensors is."""
    return all(byte in b"\t\n\r" or 32 <= byte < 127 for byte in start)
