"""What a process without a dashboard of its own would log: recorded to a folder, and logged by the process that has one."""

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import suppress
from itertools import groupby
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger
from PIL import Image

LINES, PICTURE = "logged.jsonl", "picture"


class RecordedLogger(Logger):
    """Writes metrics and pictures to `folder`, each with the stage `place` that it belongs to."""

    def __init__(self, folder: Path, place: str = "") -> None:
        super().__init__()
        self.folder = folder
        self.place = place

    def of_stage(self, place: str) -> "RecordedLogger":
        """A logger for the stage `place`, which writes to the same folder."""
        return RecordedLogger(self.folder, place)

    @property
    def name(self) -> str:
        return self.place

    @property
    def version(self) -> str:
        return ""

    def log_hyperparams(self, *_: Any, **__: Any) -> None:
        """Does nothing: the run's configuration is logged by the process that has the dashboard."""

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        numbers = {name: value if isinstance(value, int) else float(value) for name, value in metrics.items()}
        self._write({"metrics": numbers, "step": step})

    def log_picture(self, name: str, picture: Path | Image.Image, step: int | None, caption: str) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        file = f"picture{len(list(self.folder.iterdir()))}.png"
        if isinstance(picture, Path):
            shutil.copyfile(picture, self.folder / file)
        else:
            picture.save(self.folder / file)
        self._write({"name": name, PICTURE: file, "step": step, "caption": caption})

    def _write(self, entry: Mapping[str, Any]) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        with open(self.folder / LINES, "a", encoding="utf-8") as file:
            file.write(json.dumps({"place": self.place, **entry}) + "\n")


def recorded(folder: Path) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """The entries that a `RecordedLogger` wrote to `folder`, if it wrote any: those of each stage, with its place.

    A line that a full disk cut off is left out.
    """
    entries = []
    if (folder / LINES).is_file():
        for line in (folder / LINES).read_text(encoding="utf-8").splitlines():
            with suppress(ValueError):
                entries.append(json.loads(line))
    for place, of_stage in groupby(entries, key=lambda entry: entry["place"]):
        yield place, list(of_stage)
