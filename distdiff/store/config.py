"""The `export` keys, and checks of keys that name expanded datasets."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from omegaconf import DictConfig, OmegaConf

from distdiff.errors import UserError
from distdiff.keys import Group, key
from distdiff.store.filtering import RowFilter


@dataclass
class ExportKeys:
    source: Any = None  # a directory of expanded data, or a list of such directories
    output_dir: str | None = None
    where: str | None = None  # a condition on the metadata of the images that are exported
    format: str = key(choices=("imagefolder", "parquet", "webdataset"))
    shard_size: int = key(at_least=1)  # images per shard, for webdataset and parquet
    repo_id: str | None = None  # the hub repository to upload to, owner/name; if null, nothing is uploaded
    private: bool = True


def check_directories(group: str, name: str) -> Callable[[DictConfig], None]:
    """Returns a function that checks two keys of a group: `where`, and `name`, which gives one or several directories.

    `name` stands for the key's own name, such as `source`.
    """

    def check(config: DictConfig) -> None:
        keys = config[group]
        full, value = f"{group}.{name}", keys[name]
        condition = RowFilter.of(f"{group}.where", keys.where)
        if OmegaConf.is_list(value) and (not value or not all(isinstance(item, (str, int, float)) for item in value)):
            raise UserError(f"{full}={value} is not allowed: a directory, or a list of them, [a, b]")
        if OmegaConf.is_dict(value) or isinstance(value, bool):
            raise UserError(f"{full}={value} is not allowed: a directory")
        if condition and value is None:
            raise UserError(f"{group}.where={keys.where!r} is not allowed without {full}")
        if isinstance(value, (int, float)):
            keys[name] = str(value)  # a folder may be called 2024

    return check


def check_condition(config: DictConfig) -> None:
    """Raises `UserError` if `dataset.where`, a key of `dataset=expanded`, is given but is not a condition."""
    RowFilter.of("dataset.where", config.dataset.get("where"))


EXPORT = Group("export", ExportKeys, check=check_directories("export", "source"), paths=("source", "output_dir"))
