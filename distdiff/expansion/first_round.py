"""The first round of images: unguided ones, from which a guide learns before it guides others (`encoder.guide.copies`)."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import DictConfig, OmegaConf

from distdiff.caching.fingerprint import fingerprint
from distdiff.classification.training import TrainingSet
from distdiff.data.images import LabelledImages
from distdiff.encoders.config import GUIDE, MEMBERS
from distdiff.encoders.source import FirstRound
from distdiff.expansion.job import ExpansionJob
from distdiff.guidance.none import no_guidance
from distdiff.keys import NAME, TARGET
from distdiff.locking import forget, held_once_free
from distdiff.ranks.world import world
from distdiff.seeds import seed_of
from distdiff.selection.all import All
from distdiff.selection.config import ALL
from distdiff.store.options import StorageOptions
from distdiff.store.reading import read_expanded
from distdiff.writing import writing_to

OTHER_SEED = 1  # tells the seed of the first round from that of the second
# The `expansion` keys of the first round that are not the job's.
OWN = {
    "balance": False,
    "sources": "all",
    "output_dir": None,
    "split": None,
    "total_split": 1,
    "format": "imagefolder",
    "image_format": "png",
    "quality": None,
    "save_size": None,
}


class UnguidedRound(FirstRound):
    """The images that `job(data, seed)` makes. Their seed is another one than that of the images which the guide will judge.

    They are an expanded dataset in a directory of its own. A process that needs images which another one is making waits. Samples
    that fail are missing in it, as in every expansion; they would fail again, so the guide is the same each time.
    """

    def __init__(self, job: Callable[[TrainingSet, int], ExpansionJob]) -> None:
        self._job = job

    def planned(self, data: TrainingSet, seed: int) -> TrainingSet:
        job, real = self._job_of(data, seed), data.parts[0]
        labels = job.plan.labels
        images = LabelledImages(real.name, real.class_names, labels, (), None, np.arange(len(labels)))  # no names yet
        encoding = asdict(StorageOptions.of(job.config).encoding)
        return data.with_part(images, fingerprint([job.ingredients, job.config.expansion.factor, encoding]))

    def made(self, data: TrainingSet, seed: int, title: str) -> TrainingSet:
        job = self._job_of(data, seed)
        with _only_here(job.path) if world().leads else nullcontext():
            job.run(f"{title}: first round: images")
        images = read_expanded(job.path, data.parts[0], job.contents)
        return data.with_part(images, self.planned(data, seed).fingerprints[-1])

    def _job_of(self, data: TrainingSet, seed: int) -> ExpansionJob:
        return self._job(data, seed_of(seed, OTHER_SEED))


def first_round_config(config: DictConfig) -> DictConfig | None:
    """The configuration of the first round of a job; None if its guide learns from the real images alone.

    It has the job's method without guidance and selection. Its energies are those of a guide that knows the real images alone.
    """
    guide = config.encoder.get(GUIDE)
    if guide is None or not guide.copies:
        return None
    found = unguided(config, **OWN, factor=guide.copies)
    found.encoder[GUIDE].copies = 0
    return found


def unguided(config: DictConfig, **expansion: Any) -> DictConfig:
    """The configuration of a job's method without guidance and selection, with the keys `expansion` in place of its own.

    Its guide has one member, since it is only for the energies in the metadata.
    """
    found = OmegaConf.to_container(config, resolve=True)
    found["expansion"] |= expansion
    if MEMBERS in (found["encoder"].get(GUIDE) or ()):
        found["encoder"][GUIDE][MEMBERS] = 1
    found["guidance"] = no_guidance()
    found["selection"] = {TARGET: f"{All.__module__}.{All.__qualname__}", NAME: ALL}
    return OmegaConf.create(found)


@contextmanager
def _only_here(directory: Path) -> Iterator[None]:
    """Inside the block, no other process is in such a block for the same directory; waits for one that is."""
    lock = lock_of(directory)
    waiting = f"another process makes the images of {directory.name}, from which the guide learns; waiting for it"
    with ExitStack() as holding:
        with writing_to(directory.parent, "paths.expanded_dir"):
            directory.parent.mkdir(parents=True, exist_ok=True)
            holding.enter_context(held_once_free(lock, waiting))
        yield
        forget(lock)


def lock_of(directory: Path) -> Path:
    """The file beside the directory of a first round that the process holds which makes its images."""
    return directory.with_name(f".{directory.name}.lock")
