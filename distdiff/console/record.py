"""Records a run in its directory: its resolved configuration and, in its log, the error that ended it."""

import contextlib
import shutil
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from distdiff.console.output import LOG
from distdiff.errors import Stopped, UserError, onward

CONFIG = "config.yaml"
OURS = "# The resolved configuration of this run of distdiff.\n"
HYDRA = ".hydra"  # the folder in which Hydra keeps the composed configuration and the overrides


@contextlib.contextmanager
def recording(config: DictConfig, run_dir: Path, warnings: Sequence[str] = ()) -> Iterator[None]:
    """Writes `config.yaml`, but not over a user's own file, and adds `warnings` and an error that ends the block to the log."""
    try:
        if is_ours(run_dir / CONFIG):
            (run_dir / CONFIG).write_text(OURS + OmegaConf.to_yaml(config, resolve=True), encoding="utf-8")
    except OSError as error:
        raise UserError(f"{run_dir}: cannot write there ({error.strerror})") from None
    for warning in warnings:
        _add(run_dir, f"distdiff: warning: {warning}\n")
    try:
        yield
    except UserError as error:
        _add(run_dir, f"distdiff: {error}\n")
        raise
    except (Stopped, KeyboardInterrupt) as stop:
        _add(run_dir, f"distdiff: {onward(stop)}\n")
        raise
    except Exception:  # a bug of DistDiff, whose traceback goes to the log too
        _add(run_dir, traceback.format_exc())
        raise


def discard_empty(run_dir: Path) -> None:
    """Removes the directory of a run that wrote only its log and configuration; a directory that holds more is kept."""
    if any(entry.name not in (LOG, CONFIG, HYDRA) for entry in run_dir.iterdir()):
        return
    with contextlib.suppress(OSError):
        for name in (LOG, CONFIG):
            (run_dir / name).unlink(missing_ok=True)
        shutil.rmtree(run_dir / HYDRA, ignore_errors=True)
        run_dir.rmdir()


def is_ours(path: Path) -> bool:
    """True if `path` does not exist, or if an earlier run wrote it. A user may have a file of the same name."""
    if not path.exists():
        return True
    with open(path, encoding="utf-8", errors="replace") as file:
        return file.readline() == OURS


def _add(run_dir: Path, text: str) -> None:
    with contextlib.suppress(OSError), open(run_dir / LOG, "a", encoding="utf-8", errors="replace") as log:
        log.write(text)
