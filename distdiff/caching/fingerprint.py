"""A short name for everything that can change a result."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf


def fingerprint(ingredients: Mapping[str, Any]) -> str:
    """Sixteen hex digits of a hash of `ingredients` (plain values, lists, mappings, OmegaConf nodes), key order aside.

    >>> fingerprint({"a": 1, "b": [2.0]}) == fingerprint({"b": [2.0], "a": 1})
    True
    """
    canonical = json.dumps(plain(ingredients), sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]


def plain(value: Any) -> Any:
    """OmegaConf nodes, tuples and mappings as what JSON knows."""
    if isinstance(value, (DictConfig, ListConfig)):
        return OmegaConf.to_container(value, resolve=True)
    if isinstance(value, Mapping):
        return {str(key): plain(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(part) for part in value]
    return value
