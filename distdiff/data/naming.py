"""The name of a dataset whose configuration gives none.

There are no heavy imports here, because the name is needed when the configuration is checked, before anything loads.
"""

import re
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")
FILES = (*ARCHIVES, ".parquet", ".arrow")
NAMELESS = "dataset"
SEVERAL = "expanded"  # the name if `root` is several folders; only the loader of expanded datasets reads them


def default_name(dataset: DictConfig) -> str:
    """The default name of a dataset is the last part of `hub_id`.

    If `hub_id` is null, the default is the name of the folder or file `root`. A file's extension is left out, and
    characters that are awkward in a directory name are replaced by `_`.

    >>> default_name(OmegaConf.create({"root": "~/pictures/my pets.tar.gz"}))
    'my_pets'
    """
    hub_id, root = dataset.get("hub_id"), dataset.get("root")
    if hub_id is not None:
        return _plain(str(hub_id).rpartition("/")[2])
    if root is None:
        return NAMELESS  # the dataset's loader says which key is missing
    if OmegaConf.is_list(root):
        if len(root) > 1:
            return SEVERAL
        root = root[0]
    name = Path(str(root)).expanduser().resolve().name
    suffix = next((suffix for suffix in FILES if name.lower().endswith(suffix)), "")
    return _plain(name[: len(name) - len(suffix)])


def _plain(name: str) -> str:
    """Replaces characters that are awkward in a directory name by `_`."""
    return re.sub(r"[^\w.-]+", "_", name).strip("_") or NAMELESS
