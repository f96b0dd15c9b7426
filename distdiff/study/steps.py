"""The stages of a study in their order, for the display of its progress: what each is like, and how large it is."""

from collections.abc import Hashable, Iterator, Sequence

from distdiff.caching.fingerprint import fingerprint, plain
from distdiff.classification.training import ClassifierTrainer
from distdiff.console.whole import Step
from distdiff.expansion.job import ExpansionJob
from distdiff.methods.config import needs_of
from distdiff.seeds import training_seed
from distdiff.selection.config import ALL
from distdiff.study.plan import SeedPlan, StudyPlan
from distdiff.study.rows import Row
from distdiff.study.tools import StudyTools
from distdiff.study.training import SEARCH, TRAIN

JUDGE, TEST_JUDGE = "judge", "test the judge"
MAKE, MEASURE = "expand", "measure"


def study_steps(plan: StudyPlan, tools: StudyTools) -> Iterator[Step]:
    """The stages of a study, in the order in which they are carried out."""
    yield judge_step(tools.judges.is_ready(plan.pool))
    encoders = tools.assembly.encoders
    for of_seed in plan.seeds:
        lacking = of_seed.lacking()
        if encoders.trains and tools.reads_guide(of_seed, lacking):
            yield guide_step(of_seed.title("guide"), encoders.is_ready(of_seed.data, of_seed.seed))
        made, paths = set(), set()
        for name, numbers in lacking.items():
            title, row = of_seed.title(name), tools.rows[name]
            if row.expands and row.images not in made:
                job = of_seed.jobs[row.images]
                if job.path not in paths:
                    yield making_step(title, row, of_seed.maker(row, tools.rows))
                yield measuring_step(title, job)
                made.add(row.images)
                paths.add(job.path)
            yield from training_steps(title, row, tools.trainers[name], of_seed, numbers)
    yield judging_step(TEST_JUDGE, len(plan.held_out))


def judge_step(ready: bool) -> Step:
    """The training of the judge, which may be `ready`. How many steps it takes is not known before."""
    return Step(JUDGE, (JUDGE,), 0 if ready else None)


def guide_step(name: str, ready: bool) -> Step:
    """The training of a seed's guide, which may be `ready`."""
    return Step(name, ("guide",), 0 if ready else None)


def judging_step(name: str, images: int) -> Step:
    """The judge's test on so many `images`."""
    return Step(name, (MEASURE,), images, counted=False)


def making_step(title: str, row: Row, job: ExpansionJob) -> Step:
    """The stage in which the images of a row, and of others in the same directory, are made by `job`."""
    making = job.size if row.config.selection.name == ALL else None  # how many candidates it takes is not known
    if job.size is not None and job.is_done():
        making = 0
    return Step(f"{title}: {MAKE}", (("expand", row.images), ("expand", _making(row))), making)


def measuring_step(title: str, job: ExpansionJob) -> Step:
    """The stage in which the images of a row are measured."""
    return Step(f"{title}: {MEASURE}", (MEASURE,), job.size, counted=False)


def training_steps(
    title: str, row: Row, trainers: Sequence[ClassifierTrainer], of_seed: SeedPlan, numbers: Sequence[int]
) -> Iterator[Step]:
    """The stages in which a row's recipe is chosen among those of `trainers`, and its classifiers are trained.

    `numbers` are those of the training seeds. What an expanded row trains on is known only once it is there, so whether
    its classifiers are in the cache is not known yet.
    """

    def lacks(trainer: ClassifierTrainer, number: int) -> bool:
        return row.expands or not trainer.has(of_seed.data, training_seed(of_seed.seed, number))

    def steps_of(trainer: ClassifierTrainer) -> int:
        return trainer.recipe.for_images(*of_seed.sizes(row)).steps

    if len(trainers) > 1:
        steps = sum(steps_of(trainer) for trainer in trainers if lacks(trainer, 0))
        yield Step(f"{title}: {SEARCH}", ((SEARCH, row.name), (SEARCH,)), steps)
        left = sum(number > 0 for number in numbers)  # the search has trained the first classifier
        most = max(map(steps_of, trainers))  # the recipe that will be chosen may have fewer
        yield Step(f"{title}: {TRAIN}", (("train", row.name), (SEARCH, row.name), (SEARCH,)), left * most)
        return
    (trainer,) = trainers
    steps = steps_of(trainer) * sum(lacks(trainer, number) for number in numbers)
    yield Step(f"{title}: {TRAIN}", (("train", row.name), _alike(trainer)), steps)


def _alike(classifiers: ClassifierTrainer) -> Hashable:
    """Trainings of the same kind take the same time for each step."""
    recipe = classifiers.recipe
    return "train", fingerprint({"classifier": recipe.classifier, "batch_size": recipe.batch_size})


def _making(row: Row) -> str:
    """What decides most of the time that an image takes: the method, the generator and the selection, but not the guidance."""
    config = row.config
    alike = {"method": plain(config.method), "selection": config.selection.name}
    if "generator" in needs_of(config.method):
        alike |= {"generator": plain(config.generator), "strength": plain(config.expansion.strength)}
    return fingerprint(alike)
