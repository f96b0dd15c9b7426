"""The keys whose values are paths."""

from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from distdiff.errors import UserError
from distdiff.keys import Group


def set_places(group: Group, node: DictConfig, base: Path | None) -> None:
    """Expands `~` in the paths of an option, `node`. If `base` is given, relative paths are taken from there.

    A value that may also be a hub id is taken for a path only if there is such a file or folder. Raises `UserError` for an
    empty path.
    """
    for name in group.paths:
        owner, _, own = name.rpartition(".")
        holder = OmegaConf.select(node, owner) if owner else node
        if holder is not None and own in holder:
            holder[own] = _place(f"{group.name}.{name}", holder[own], base, name in group.hub_ids)


def _place(key: str, value: Any, base: Path | None, may_be_hub_id: bool) -> Any:
    if OmegaConf.is_list(value):
        return [_place(key, item, base, may_be_hub_id) for item in value]
    if not isinstance(value, str):
        return value
    if not value.strip():
        raise UserError(f"{key}={value!r} is not allowed: it is empty")
    path = Path(value).expanduser() if value == "~" or value.startswith("~/") else Path(value)
    if base is not None and (not may_be_hub_id or (base / value.partition(":")[0]).exists()):
        path = base / path
    return value if path == Path(value) else str(path)
