"""Makes a user's own modules importable, because the `_target_` of an option may be in one of them."""

import os
import sys
from pathlib import Path

FOLDERS = "DISTDIFF_IMPORT_FROM"  # used in place of PYTHONPATH, with which a user's random.py would hide Python's own


def import_from(*folders: Path) -> None:
    """Lets this process and the ranks that it starts import modules from `folders`, which Python searches last."""
    wanted = [str(folder.resolve()) for folder in folders]
    sys.path += [folder for folder in wanted if folder not in sys.path]
    os.environ[FOLDERS] = os.pathsep.join(wanted)


def import_as_told() -> None:
    """In a rank's process, repeats the `import_from` call of the process that started the rank."""
    import_from(*map(Path, filter(None, os.environ.get(FOLDERS, "").split(os.pathsep))))
