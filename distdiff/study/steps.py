"""The stages of a study in their order, for the display of its progress: what each is like, and how large it is."""

from collections.abc import Hashable, Iterator

from distdiff.caching.fingerprint import fingerprint, plain
from distdiff.classification.recipe import Recipe
from distdiff.classification.training import ClassifierTrainer, TrainingSet
from distdiff.console.whole import Step
from distdiff.expansion.job import ExpansionJob
from distdiff.methods.config import needs_of
from distdiff.selection.config import ALL
from distdiff.study.rows import Row

MEASURE = "measure"


def judge_step(ready: bool) -> Step:
    """The training of the judge, which may be `ready`. How many steps it takes is not known before."""
    return Step("judge", ("judge",), 0 if ready else None)


def guide_step(name: str, ready: bool) -> Step:
    """The training of a seed's guide, which may be `ready`."""
    return Step(name, ("guide",), 0 if ready else None)


def judging_step(name: str, images: int) -> Step:
    """The judge's test on so many `images`."""
    return Step(name, (MEASURE,), images, counted=False)


def row_steps(
    title: str, row: Row, job: ExpansionJob | None, classifiers: ClassifierTrainer, data: TrainingSet, seed: int
) -> Iterator[Step]:
    """The stages of a row under one study seed, whose real images are `data`; `title` begins their names."""
    if job is not None:
        images = job.size
        making = images if row.config.selection.name == ALL else None  # how many candidates it takes is not known
        if images is not None and job.is_done():
            making = 0
        yield Step(f"{title}: expand", (("expand", row.name), ("expand", _making(row))), making)
        yield Step(f"{title}: {MEASURE}", (MEASURE,), images, counted=False)
    # What a row trains on is known only once it is there, so whether its classifier is in the cache is not known yet.
    found = job is None and classifiers.has(data, seed)
    recipe = classifiers.recipe.for_images(len(data), 0 if job is None else job.planned_size)
    yield _training(f"{title}: train", (("train", row.name),), recipe, found)


def _training(name: str, kinds: tuple[Hashable, ...], recipe: Recipe, found: bool) -> Step:
    alike = ("train", fingerprint({"classifier": recipe.classifier, "batch_size": recipe.batch_size}))
    return Step(name, (*kinds, alike), 0 if found else recipe.steps)


def _making(row: Row) -> str:
    """What decides most of the time that an image takes: the method, the generator and the selection, but not the guidance."""
    config = row.config
    alike = {"method": plain(config.method), "selection": config.selection.name}
    if "generator" in needs_of(config.method):
        alike |= {"generator": plain(config.generator), "strength": plain(config.expansion.strength)}
    return fingerprint(alike)
