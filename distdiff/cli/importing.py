"""Makes a user's own modules importable: an option's `_target_` may name one."""

import os
import sys
from pathlib import Path

FOLDERS = "DISTDIFF_IMPORT_FROM"  # not PYTHONPATH: there a user's random.py would come before Python's own


def import_from(*folders: Path) -> None:
    """Lets this process and the ranks that it starts import modules from these folders, which are searched last."""
    wanted = [str(folder.resolve()) for folder in folders]
    sys.path += [folder for folder in wanted if folder not in sys.path]
    os.environ[FOLDERS] = os.pathsep.join(wanted)


def import_as_told() -> None:
    """Does the same in a rank's process, with the folders of the process that started it."""
    import_from(*map(Path, filter(None, os.environ.get(FOLDERS, "").split(os.pathsep))))
