"""A short name for everything that can change a result."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf

from distdiff.caching.hashing import content_hash
from distdiff.errors import UserError
from distdiff.hub import hub_identity
from distdiff.placeholders import unread

WHOLE_HASH_LIMIT = 64 * 2**20  # bytes; the hash of a larger file is remembered
MODEL_FILES = (".json", ".txt", ".safetensors", ".bin")


def fingerprint(ingredients: Mapping[str, Any]) -> str:
    """Sixteen hex digits of a hash of `ingredients`. The hash does not depend on the order of keys.

    The ingredients are plain values, lists, mappings or OmegaConf nodes.

    >>> fingerprint({"a": 1, "b": [2.0]}) == fingerprint({"b": [2.0], "a": 1})
    True
    """
    canonical = json.dumps(plain(ingredients), sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]


def fingerprint_files(path: Path) -> str:
    """Sixteen hex digits of a hash of a model's files: those below `path` if it is a folder, or the file `path`.

    The hash depends on the files' names below the folder and on their whole contents, but not on where the files are or
    when they were written. So a copy on another disk has the same hash. The docstring of `content_hash` says how the
    hash of a large file is remembered, and how fast hashing is. Raises `UserError` for a file that may not be read.
    """
    files = sorted(path.rglob("*")) if path.is_dir() else [path]
    digest = hashlib.sha256()
    for file in files:
        if file.is_file() and (file == path or file.suffix in MODEL_FILES):
            digest.update(str(file.relative_to(path)).encode())
            try:
                small = file.stat().st_size <= WHOLE_HASH_LIMIT
                digest.update(file.read_bytes() if small else content_hash(file).encode())
            except OSError as error:
                raise UserError(f"{file}: it cannot be read ({unread(error)})") from None
    return digest.hexdigest()[:16]


def fingerprint_model(path: Path | None, name: str, revision: str | None = None) -> str:
    """Identifies weights: a hash of the files at `path` or, if `path` is None, the hub id `name` with its commit."""
    return hub_identity(name, revision) if path is None else fingerprint_files(path)


def plain(value: Any) -> Any:
    """Converts OmegaConf nodes, tuples and mappings to types that JSON has."""
    if isinstance(value, (DictConfig, ListConfig)):
        return OmegaConf.to_container(value, resolve=True)
    if isinstance(value, Mapping):
        return {str(key): plain(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(part) for part in value]
    return value
