"""What both searches of `expansion.tune=true` need: folds, the images that a candidate makes, the configuration chosen."""

import shutil
from dataclasses import replace
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from distdiff.caching.stages import StageCache
from distdiff.classification.training import TrainingSet, training_set
from distdiff.data.images import LabelledImages
from distdiff.data.readable import readable
from distdiff.data.splits.folds import class_sizes, take_fold
from distdiff.errors import UserError
from distdiff.expansion.assembly import Assembly
from distdiff.expansion.generators import Generators
from distdiff.ranks.world import world
from distdiff.store.directory import ExpandedDirectory
from distdiff.store.reading import read_expanded
from distdiff.tuning.config import OWN
from distdiff.wording import counted

RECORD = "tuning.json"
IMAGES = "tuning"  # the folder in the cache for the images of a search, which are removed


def number_of_folds(config: DictConfig, images: LabelledImages) -> int:
    """`tune.folds` or, if the smallest class has fewer images, as many as it has.

    Raises `UserError` if a class has a single image, or if there is a single class.
    """
    return min(config.tune.folds, _smallest_class(images))


def refuse_other_files(config: DictConfig) -> None:
    """Raises `UserError` if `expansion.output_dir` holds other files, so that this is known before hours of search."""
    if config.expansion.output_dir is not None:
        world().once(ExpandedDirectory(Path(config.expansion.output_dir)).refuse_other_files)


def apart_from_fold(data: TrainingSet, number: int, fold: int, seed: int) -> tuple[TrainingSet, LabelledImages]:
    """The images outside the fold with the index `fold`, of `number` folds that `seed` draws, and those in it.

    Images that cannot be read were left out of `data` before, and are not told again.
    """
    rest, held_out = (replace(part, unreadable=()) for part in take_fold(data.parts[0], number, fold, seed))
    return training_set(rest, data.fit), readable(held_out, "training")[0]


def chosen_config(candidate: DictConfig, config: DictConfig) -> DictConfig:
    """The configuration of a candidate, with the keys of the job `config` that the search replaced in candidates."""
    chosen = candidate.copy()
    OmegaConf.set_struct(chosen, False)
    for name in OWN:
        chosen.expansion[name] = False if name == "tune" else config.expansion[name]
    return chosen


def expanded_into(
    directory: Path,
    candidate: DictConfig,
    data: TrainingSet,
    seed: int,
    title: str,
    cache: StageCache,
    generators: Generators,
) -> LabelledImages:
    """The images that a candidate makes of `data`, in a `directory` that nobody else uses; goes on where it was stopped."""
    config = candidate.copy()
    OmegaConf.set_struct(config, False)
    config.expansion.output_dir = str(directory)
    job = Assembly(config, cache, generators).job(data, seed)
    world().once(lambda: _remove_torn(job.path))
    job.run(title)
    return read_expanded(job.path, data.parts[0], job.contents)


def _smallest_class(images: LabelledImages) -> int:
    """The number of sources of the smallest class: of images or, where images have groups that stay together, of groups.

    Raises `UserError` if there is a single class, or if a class has fewer than two.
    """
    if len(images.class_names) < 2:
        raise UserError(
            f"expansion.tune=true is not allowed: dataset {images.name} has one class, and a classifier needs two; type the "
            "settings"
        )
    counts = class_sizes(images)
    if (smallest := int(counts.min())) < 2:
        number = counted(smallest, "image" if images.groups is None else "source")
        raise UserError(
            f"expansion.tune=true is not allowed: class {images.class_names[int(counts.argmin())]} has {number}, and each "
            "class needs two, one of which is set aside"
        )
    return smallest


def _remove_torn(directory: Path) -> None:
    """Removes a directory of which a kill has left files but no manifest."""
    if directory.is_dir() and ExpandedDirectory(directory).manifest() is None:
        shutil.rmtree(directory)
