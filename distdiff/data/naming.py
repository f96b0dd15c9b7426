"""What a dataset is called where nobody says it.

No heavy imports: validation asks before anything loads.
"""

import re
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")
FILES = (*ARCHIVES, ".parquet", ".arrow")
NAMELESS = "dataset"
SEVERAL = "expanded"  # only expanded datasets are read several at once


def default_name(dataset: DictConfig) -> str:
    """The name of the folder at `root`, or of the file without its extension; else the last part of `hub_id`.

    >>> default_name(OmegaConf.create({"root": "~/pictures/my pets.tar.gz"}))
    'my_pets'
    """
    hub_id, root = dataset.get("hub_id"), dataset.get("root")
    if hub_id is not None:
        return _plain(str(hub_id).rpartition("/")[2])
    if root is None:
        return NAMELESS  # its loader says what is missing
    if OmegaConf.is_list(root):
        if len(root) > 1:
            return SEVERAL
        root = root[0]
    name = Path(str(root)).expanduser().resolve().name
    suffix = next((suffix for suffix in FILES if name.lower().endswith(suffix)), "")
    return _plain(name[: len(name) - len(suffix)])


def _plain(name: str) -> str:
    """In letters, digits, dots and dashes: it will be typed as a part of a directory's name."""
    return re.sub(r"[^\w.-]+", "_", name).strip("_") or NAMELESS
