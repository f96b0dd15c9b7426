"""Where a user's own modules are found: an option's `_target_` may name one."""

import os
import sys
from pathlib import Path


def import_from(*folders: Path) -> None:
    """Lets modules in these folders be imported, after all others, by this process and those that it starts."""
    wanted = [str(folder.resolve()) for folder in folders]
    known = list(filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep)))
    sys.path += [folder for folder in wanted if folder not in sys.path]
    os.environ["PYTHONPATH"] = os.pathsep.join([*known, *(folder for folder in wanted if folder not in known)])
