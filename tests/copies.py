"""A stand-in for a generator that copies its sources: expansions of real files without a pipeline."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet
import torch
from conftest import compose_once
from PIL import Image

from distdiff.classification.training import few_shot_training_set
from distdiff.data.datasets import load_dataset
from distdiff.data.images import LabelledImages
from distdiff.data.pixels import to_tensor
from distdiff.expansion.job import ExpansionJob
from distdiff.methods.item import WorkItem
from distdiff.methods.synthesis import Synthesized, Synthesizer


class Copies(Synthesizer):
    """The source itself, and for names in `bad` the pixels given there."""

    def __init__(self, sources: LabelledImages, bad: dict[str, torch.Tensor] | None = None) -> None:
        super().__init__()
        self.sources, self.bad, self.asked = sources, bad or {}, []

    def forward(self, items: list[WorkItem]) -> Synthesized:
        self.asked += [item.file_name for item in items]
        pixels = [self.bad.get(item.file_name, to_tensor(self.sources.image(item.position))) for item in items]
        return Synthesized(torch.stack(pixels), {})


def noise_folder(tmp_path: Path) -> Path:
    """Two classes of 10 images of 8x8 pixels."""
    rng = np.random.default_rng(0)
    for name in ("a", "b"):
        (tmp_path / "data" / name).mkdir(parents=True)
        for number in range(10):
            pixels = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "data" / name / f"{number}.png")
    return tmp_path / "data"


def copying_jobs(folder: Path, small_run: list[str], tmp_path: Path) -> Callable[..., ExpansionJob]:
    """An expansion of the folder by `Copies`, with some overrides."""

    def make(*overrides: str, bad: dict[str, torch.Tensor] | None = None) -> ExpansionJob:
        given = [*small_run, "dataset=imagefolder", f"dataset.root='{folder}'", "expansion.batch_size=4"]
        config = compose_once("expand", [*given, *overrides])
        data = few_shot_training_set(config, load_dataset(config.dataset).train, config.seed)
        synthesizer = Copies(data.parts[0], bad)
        path, ingredients = tmp_path / "expanded", {"data": data.fingerprints, "seed": 0}
        made = ExpansionJob("copies", 0, data.parts[0], ingredients, lambda _: synthesizer, path, config)
        made.claim()
        made.maker = synthesizer
        return made

    return make


def spoil(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:60])


def failures(path: Path) -> list[dict]:
    return pyarrow.parquet.read_table(path / "failures.parquet").to_pylist()


def names(path: Path) -> set[str]:
    return {file.relative_to(path).as_posix() for file in path.glob("[ab]/*.png")}
