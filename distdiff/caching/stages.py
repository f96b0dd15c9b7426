"""Finished stages on disk. Each is computed once and shared by runs, a multirun's jobs and simultaneous processes."""

import json
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from distdiff.caching.fingerprint import fingerprint, plain
from distdiff.errors import first_line
from distdiff.locking import LEASE, Timeout, held
from distdiff.ranks.world import world
from distdiff.texts import read_json
from distdiff.writing import writing_to

FINGERPRINT = re.compile(r"[0-9a-f]{16}")
INGREDIENTS = "ingredients.json"
ASIDE = re.compile(r"\.([0-9a-f]{16})-.+")  # the name of a stage's temporary folder; the group is the fingerprint


class StageCache:
    """Folders `<root>/<stage>/<fingerprint>`, each written under a temporary name and renamed when complete.

    A process that is killed while it makes a stage leaves its temporary folder behind. The next process that makes a
    stage of the same name (`<stage>`) removes this folder.
    """

    def __init__(self, root: Path | str) -> None:
        self.root = Path(root)
        self.made = 0  # the number of stages that this process made rather than found

    def has(self, stage: str, ingredients: Mapping[str, Any]) -> bool:
        """Whether `stage` exists for `ingredients`."""
        return self.folder(stage, ingredients).is_dir()

    def folder(self, stage: str, ingredients: Mapping[str, Any]) -> Path:
        """The folder of `stage` for `ingredients`, whether it exists or not."""
        return self.root / stage / fingerprint(ingredients)

    def find(self, stage: str, identity: str) -> tuple[Path, dict[str, Any]] | None:
        """The folder of `stage` for the ingredients with the fingerprint `identity`, and these; None if there is none.

        An `identity` that is no fingerprint, or ingredients that have another one, are not there either.
        """
        folder = self.root / stage / identity
        if not FINGERPRINT.fullmatch(identity) or not folder.is_dir():
            return None
        ingredients = read_json(folder / INGREDIENTS)
        return (folder, ingredients) if fingerprint(ingredients) == identity else None

    def get(self, stage: str, ingredients: Mapping[str, Any], build: Callable[[Path], None]) -> Path:
        """The folder of `stage` for `ingredients`. If the stage does not exist yet, `build(folder)` makes its files.

        A second process that wants the same stage waits for the first. In a job of several ranks, only the leading rank
        makes the stage. The file `ingredients.json` in the folder holds the ingredients.
        """
        return world().once(lambda: self._get(stage, ingredients, build))

    def get_alone(self, stage: str, ingredients: Mapping[str, Any], build: Callable[[Path], None]) -> Path:
        """Like `get`, but for work that not all ranks of a job do: no rank waits for the result of another."""
        return self._get(stage, ingredients, build)

    def get_together(self, stage: str, ingredients: Mapping[str, Any], build: Callable[[Path | None], None]) -> Path:
        """Like `get`, but all ranks of a job call `build`; ranks that do not lead call it with None."""
        ranks, folder = world(), self.folder(stage, ingredients)
        if ranks.size == 1:
            return self.get(stage, ingredients, build)
        with self._lock(folder) if ranks.leads else nullcontext():
            if not ranks.once(folder.is_dir):
                if ranks.leads:
                    self._make(folder, ingredients, build)
                else:
                    build(None)
                ranks.barrier()
        return folder

    def _get(self, stage: str, ingredients: Mapping[str, Any], build: Callable[[Path], None]) -> Path:
        folder = self.folder(stage, ingredients)
        if not folder.is_dir():
            with self._lock(folder):
                if not folder.is_dir():
                    self._make(folder, ingredients, build)
        return folder

    @contextmanager
    def _lock(self, folder: Path) -> Iterator[None]:
        with ExitStack() as holding:
            with self._writing():
                folder.parent.mkdir(parents=True, exist_ok=True)
                holding.enter_context(held(_lock_of(folder)))
            yield

    def _writing(self) -> AbstractContextManager[None]:
        return writing_to(self.root, "paths.cache_dir")

    def _make(self, folder: Path, ingredients: Mapping[str, Any], build: Callable[[Path], None]) -> None:
        with self._writing():
            _remove_forsaken(folder)
            aside = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
        try:
            build(aside)
            with self._writing():
                (aside / INGREDIENTS).write_text(json.dumps(plain(ingredients), indent=2), encoding="utf-8")
                aside.rename(folder)
            self.made += 1
        except SafetensorError as error:  # safetensors raises this when it cannot write
            shutil.rmtree(aside, ignore_errors=True)
            with self._writing():
                raise OSError(first_line(error)) from error
        except BaseException:
            shutil.rmtree(aside, ignore_errors=True)
            raise


def _lock_of(folder: Path) -> str:
    return f"{folder}.lock"


def _remove_forsaken(folder: Path) -> None:
    """Removes temporary folders beside `folder` that no process fills any more. The caller holds the lock of `folder`.

    A process that fills a temporary folder holds the lock of its stage, so if this lock is free, the process was
    killed. If the lock of a stage is a lease, the stage's temporary folder is left, because finding out that another
    machine is dead takes minutes.
    """
    for aside in folder.parent.glob(".*/"):
        if (match := ASIDE.fullmatch(aside.name)) is None:
            continue
        stage = folder.with_name(match[1])
        if stage == folder:
            shutil.rmtree(aside, ignore_errors=True)
        elif not Path(f"{_lock_of(stage)}{LEASE}").exists():
            with suppress(Timeout, OSError), held(_lock_of(stage), timeout=0):
                shutil.rmtree(aside, ignore_errors=True)
