"""Links to expanded datasets, also where there are no symbolic links.

Windows without the privilege, FAT and some network disks have no symbolic links. There, a link is a text file that holds
the path. Links inside the outputs directory hold relative paths, so that they stay valid when the directory is moved.
"""

import os
from contextlib import suppress
from pathlib import Path

LONGEST = 4096  # bytes of a text file that may be a link


def link(place: Path, target: Path, within: Path | str) -> None:
    """Makes `place` a link to the directory `target`; an existing link is replaced.

    The link is relative if `place` and `target` are both in the directory `within`.
    """
    place.parent.mkdir(parents=True, exist_ok=True)
    whole, here, top = target.resolve(), place.parent.resolve(), Path(within).expanduser().resolve()
    inside = whole.is_relative_to(top) and here.is_relative_to(top)
    path = os.path.relpath(whole, here) if inside else str(whole)
    place.unlink(missing_ok=True)
    try:
        place.symlink_to(path, target_is_directory=True)
    except (OSError, NotImplementedError):
        # Slashes are understood by every system, so that the outputs may move to another one.
        place.write_text(f"{path.replace(os.sep, '/')}\n", encoding="utf-8")


def followed(path: Path) -> Path:
    """The directory to which `path` leads if it is a text file that stands for a link; any other `path` unchanged."""
    with suppress(OSError, ValueError):
        if path.is_file() and path.stat().st_size <= LONGEST:
            lines = path.read_text(encoding="utf-8").splitlines()
            if len(lines) == 1 and lines[0]:
                for written in (lines[0], lines[0].replace("\\", "/")):  # earlier versions on Windows wrote backslashes
                    if (target := path.parent / written).is_dir():
                        return target
    return path
