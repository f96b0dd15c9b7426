"""A stand-in for a generator: images and metadata from each item's seed, in microseconds."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from omegaconf import DictConfig

from distdiff.data.images import LabelledImages
from distdiff.expansion.job import ExpansionJob
from distdiff.expansion.writer import ExpandedWriter
from distdiff.methods.item import WorkItem
from distdiff.methods.synthesis import Synthesized, Synthesizer

SIZE = 32


class StandIn(Synthesizer):
    """Smooth images of 32x32; `made` collects the file names of all that it was asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.made: list[str] = []

    def forward(self, items: Sequence[WorkItem]) -> Synthesized:
        self.made += [item.file_name for item in items]
        coarse = np.stack([np.random.default_rng(item.seed).random((3, 4, 4), np.float32) for item in items])
        images = torch.nn.functional.interpolate(torch.from_numpy(coarse), size=SIZE, mode="bilinear")
        columns = {
            "energy_before": [1.5] * len(items),
            "energy_after": [item.seed / 2**63 for item in items],
            "group": [item.copy % 3 for item in items],
            "gradient_finite": [True] * len(items),
        }
        return Synthesized(images, columns)


def standin_job(config: DictConfig, path: Path, sources: int) -> tuple[ExpansionJob, StandIn]:
    """An expansion of `sources` images of two classes that claims `path`."""
    labels = np.arange(sources) % 2
    keys = tuple(f"sub.dir/image {i}_val_.v{i % 3}.jpg" for i in range(sources))
    return standin_job_of(
        LabelledImages("any", ("train", "b.c"), labels, keys, read=None, indices=np.arange(sources)), config, path
    )


def standin_job_of(images: LabelledImages, config: DictConfig, path: Path) -> tuple[ExpansionJob, StandIn]:
    """An expansion of `images` that claims `path`."""
    synthesizer = StandIn()
    ingredients = {"seed": 0, "sources": len(images)}
    job = ExpansionJob("none", 0, images, ingredients, lambda title: synthesizer, path, config)
    job.claim()
    return job, synthesizer


class Killed(BaseException):
    pass


def interrupted(job: ExpansionJob, monkeypatch, batches: int) -> None:
    """Runs until so many batches are written, and stops as a killed process does: nothing is closed."""
    write, calls = ExpandedWriter.write_on_batch_end, []

    def die(self, *arguments):
        if len(calls) == batches:
            raise Killed
        calls.append(1)
        write(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(ExpandedWriter, "write_on_batch_end", die)
        with pytest.raises(Killed):
            job.run("test")
