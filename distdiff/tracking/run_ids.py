"""Keeps the id of a job's W&B run in a file, so that the same job continues that run when it is started again."""

import contextlib
import shutil
from pathlib import Path

KEPT = ".wandb-id"
WHOLE = "0-of-1"  # the name of the share of a job that makes an expansion alone


def kept_id(folder: Path) -> str | None:
    """The id that is kept in `folder`, if any."""
    try:
        return (folder / KEPT).read_text(encoding="utf-8").strip() or None
    except (OSError, ValueError):
        return None


def keep_id(folder: Path, run_id: str) -> None:
    """Keeps an id in `folder`. A folder that cannot be written to keeps none, and the next start begins a new run."""
    with contextlib.suppress(OSError):
        (folder / KEPT).write_text(f"{run_id}\n", encoding="utf-8")


def take_over(directory: Path, share: str, run_dir: Path) -> None:
    """Copies to a run's directory the id that an unfinished expanded dataset's directory keeps, if it keeps one.

    Jobs that make one share each have a run each, so each `share` has an id of its own.
    """
    with contextlib.suppress(OSError):
        shutil.copyfile(directory / _name(share), run_dir / KEPT)


def hand_on(run_dir: Path, directory: Path, share: str) -> None:
    """Copies a run's id to the directory of the expanded dataset that the run makes, until that is finished."""
    with contextlib.suppress(OSError):
        shutil.copyfile(run_dir / KEPT, directory / _name(share))


def forget_ids(directory: Path) -> None:
    """Removes all ids from the directory of an expanded dataset that is finished."""
    for path in directory.glob(f"{KEPT}*"):
        with contextlib.suppress(OSError):
            path.unlink()


def _name(share: str) -> str:
    return KEPT if share == WHOLE else f"{KEPT}-{share}"
