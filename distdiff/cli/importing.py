"""Imports: a user's own modules, since the `_target_` of an option may be in one of them, and large libraries."""

import gc
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
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


@contextmanager
def uncollected() -> Iterator[None]:
    """Switches Python's garbage collection off while large libraries are imported in the block.

    Hardly anything of them becomes garbage, and looking through all of it again and again takes a sixth of the time of importing.
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
