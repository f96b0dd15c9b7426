"""The directories of runs and multiruns: a new one for each, with one name in all processes."""

import itertools
from pathlib import Path

from omegaconf import OmegaConf

from distdiff.errors import UserError


def register_directories(make: bool) -> None:
    """Registers the resolver `${new_directory:<path>}`, which `conf/settings.yaml` uses for the directories of runs.

    It returns `<path>` or, if that exists, `<path>-1`, `<path>-2`, …, and makes the directory if `make` is set. Hydra
    gives the resolved value of a multirun to all of its jobs. Raises `UserError` if the directory cannot be made.
    """

    def new_directory(wanted: str) -> str:
        for attempt in itertools.count():
            path = Path(wanted if attempt == 0 else f"{wanted}-{attempt}")
            try:
                if make:
                    path.mkdir(parents=True)  # an existing directory is an error, so no two processes get the same one
                return str(path)
            except FileExistsError:
                continue
            except OSError as error:
                raise UserError(f"paths.output_dir: cannot write to {path} ({error.strerror})") from None
        raise AssertionError

    OmegaConf.register_new_resolver("new_directory", new_directory, use_cache=True, replace=True)
