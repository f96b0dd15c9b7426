"""A job's configuration as flat columns, by which a dashboard's table of runs is sorted, filtered and grouped."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from distdiff.keys import TARGET

# Parts that are no columns: options that were not chosen (thousands of keys), and where a run is stored and logged.
NOT_COLUMNS = ("options", "paths", "logger", "fetch_only")


def columns(config: DictConfig) -> dict[str, Any]:
    """The configuration by dotted keys, such as `guidance.rho`."""
    parts = {name: part for name, part in config.items_ex(resolve=False) if name not in NOT_COLUMNS}
    plain = {
        name: OmegaConf.to_container(part, resolve=True) if OmegaConf.is_config(part) else config[name]
        for name, part in parts.items()
    }
    named = {"dataset.name": dataset_name(config)} if "dataset" in config else {}
    return dict(_flat(plain)) | named


def dataset_name(config: Mapping[str, Any]) -> str:
    """What a run calls its dataset: its name or, for folders and hub ids, the last part of these; empty without one."""
    keys = config.get("dataset", {})
    return keys.get("name") or Path(str(keys.get("hub_id") or keys.get("root") or "")).name


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        elif name != TARGET:
            yield f"{prefix}{name}", value
