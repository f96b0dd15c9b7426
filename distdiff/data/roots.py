"""Checks `dataset.root`, and words the messages for a root that does not exist.

There are no heavy imports here, because the check runs before anything loads.
"""

from collections.abc import Iterator
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from distdiff.data.naming import ARCHIVES
from distdiff.errors import UserError
from distdiff.placeholders import absent

FOLDER, TABLES = "folder or archive", "file or folder"  # what `root` must be for images, and for tables
READ = f"a folder, or an archive ({', '.join(ARCHIVES)})"
CONDITION = "where"  # the key that selects images; only datasets that read several directories have it


def check_root(dataset: DictConfig) -> None:
    """Raises `UserError` if `root` is not a path, or is a list although only one path is allowed.

    `UserError` is also raised for a condition `where` without a `root`. A `root` that is a number is converted to text.
    """
    root = dataset.get("root")
    several, condition = OmegaConf.is_list(root), dataset.get(CONDITION)
    if several and (not root or not all(isinstance(item, (str, int, float)) for item in root)):
        raise UserError(f"dataset.root={root} is not allowed: a directory, or a list of them, [a, b]")
    if OmegaConf.is_dict(root) or isinstance(root, bool):
        raise UserError(f"dataset.root={root} is not allowed: a directory")
    if several and CONDITION not in dataset:
        raise UserError(f"dataset.root={root} is not allowed: a list of directories is for dataset=expanded")
    if condition is not None and root is None:
        raise UserError(f"dataset.{CONDITION}={condition!r} is not allowed without dataset.root")
    if isinstance(root, (int, float)):
        dataset.root = str(root)  # a folder's name may be a number, such as 2024


def check_root_is_there(dataset: DictConfig) -> None:
    """Raises `UserError` for a `root` that does not exist, unless the dataset is read from the hub instead."""
    url, hub_id = dataset.get("url"), dataset.get("hub_id")
    if url is None and hub_id is not None:
        return  # the hub is read, and `root` is ignored
    missing = [root for root in _paths(dataset.get("root")) if not exists(Path(root).expanduser())]
    if missing and url is not None:
        raise UserError(no_copy_at(missing[0], where_to_get(dataset.name, url, hub_id)))
    if missing:
        raise UserError(nothing_at(missing[0], TABLES if "hub_id" in dataset else FOLDER))


def nothing_at(root: str, wanted: str = FOLDER) -> str:
    """The message for a root that does not exist."""
    return f"dataset.root={root}: {absent(Path(root).expanduser(), f'no such {wanted}')}"


def no_such_kind(root: str) -> str:
    """The message for a root that is neither a folder nor an archive of a kind that is read."""
    path = Path(root).expanduser()
    if not exists(path):
        return nothing_at(root)
    if path.suffix.lower() in (".parquet", ".arrow"):
        return f"dataset.root={root}: a file of a table, which dataset=parquet reads; dataset=imagefolder reads {READ}"
    what = "a file of a kind that is not read" if path.is_file() else "neither a folder nor a file"
    return f"dataset.root={root}: {what}; allowed are {READ}"


def exists(path: Path) -> bool:
    """Whether something is at `path`. Raises `UserError` if nobody may look there."""
    try:
        return path.exists()
    except PermissionError:
        raise UserError(f"dataset.root={path}: it cannot be looked up (permission denied)") from None


def no_copy_at(root: str, where: str) -> str:
    """The message for a missing copy of a benchmark dataset. `where` says where to get the dataset."""
    return f"dataset.root={root}: {absent(Path(root).expanduser(), 'no such folder')}; {where}"


def where_to_get(name: str, url: str, hub_id: str | None) -> str:
    """Says where to get a benchmark dataset."""
    return f"get {name} from {url}" + (f", or dataset.root=null reads {hub_id} from the hub" if hub_id else "")


def _paths(root: object) -> Iterator[str]:
    if root is not None:
        yield from map(str, root if OmegaConf.is_list(root) else [root])
