"""Finished stages on disk: computed once, shared by runs, by a multirun's jobs and by simultaneous processes."""

import json
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from filelock import FileLock

from distdiff.caching.fingerprint import fingerprint, plain


class StageCache:
    """Folders `<root>/<stage>/<fingerprint>`, each written aside and renamed when whole."""

    def __init__(self, root: Path | str) -> None:
        self.root = Path(root)

    def get(self, stage: str, ingredients: Mapping[str, Any], build: Callable[[Path], None]) -> Path:
        """The folder of `stage` for `ingredients`; `build(folder)` fills it where it is not there yet.

        A second process that wants the same stage waits for the first. `ingredients.json` in the folder says what it
        was made from.
        """
        folder = self.root / stage / fingerprint(ingredients)
        if folder.is_dir():
            return folder
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{folder}.lock"):
            if folder.is_dir():
                return folder
            aside = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
            try:
                build(aside)
                (aside / "ingredients.json").write_text(json.dumps(plain(ingredients), indent=2), encoding="utf-8")
                aside.rename(folder)
            except BaseException:
                shutil.rmtree(aside, ignore_errors=True)
                raise
        return folder
