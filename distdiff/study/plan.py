"""The plan of a study: the images that are trained and tested on, and the expansions that have to be made."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from omegaconf import DictConfig

from distdiff.classification.training import TrainingSet, few_shot_training_set, training_set
from distdiff.data.images import DatasetSplits, LabelledImages, Leak
from distdiff.data.readable import readable
from distdiff.data.splits.carving import VALIDATION, check_measurable
from distdiff.expansion.job import ExpansionJob
from distdiff.study.rows import Row
from distdiff.study.runs import RunResult


@dataclass(frozen=True)
class SeedPlan:
    """The plan for one data seed: its training images, and the expansion jobs of all rows, by `Row.images`.

    `finished` has the runs of each row that are in the study's table, one for each training seed, None for those that
    have to be made. `fingerprints` identify the same runs.
    """

    seed: int
    data: TrainingSet
    jobs: Mapping[str, ExpansionJob] = field(default_factory=dict)
    finished: Mapping[str, list[RunResult | None]] = field(default_factory=dict)
    fingerprints: Mapping[str, list[str]] = field(default_factory=dict)

    def title(self, stage: str) -> str:
        """The title of a row's progress bars, or of the guide's, under this data seed."""
        return f"seed {self.seed}: {stage}"

    def sizes(self, row: Row) -> tuple[int, int]:
        """The number of real and of synthetic images on which a row trains."""
        return len(self.data), self.jobs[row.images].planned_size if row.expands else 0

    def maker(self, row: Row, rows: Mapping[str, Row]) -> ExpansionJob:
        """The job that makes a row's images: of all lacking rows with the same directory, that with the largest factor.

        `rows` are those of the study by name.
        """
        own = self.jobs[row.images]
        lacking = [self.jobs[rows[name].images] for name in self.lacking() if rows[name].expands]
        sharing = [own, *(job for job in lacking if job.path == own.path)]
        return max(sharing, key=lambda job: job.config.expansion.factor)

    def lacking(self) -> dict[str, list[int]]:
        """The rows with runs that have to be made, and the numbers of their training seeds."""
        numbers = {
            name: [number for number, run in enumerate(runs) if run is None] for name, runs in self.finished.items()
        }
        return {name: lacking for name, lacking in numbers.items() if lacking}


@dataclass(frozen=True)
class StudyPlan:
    """The plan of a study: the pool from which seeds draw training images, the images to test on, and a plan for each seed.

    `validation` are the images on which settings are chosen, None if nothing has to be chosen. `leaks` are those between
    the splits of the dataset.
    """

    pool: TrainingSet
    held_out: LabelledImages
    validation: LabelledImages | None
    seeds: list[SeedPlan]
    leaks: tuple[Leak, ...] = ()

    def largest(self) -> int:
        """The number of images in the largest training set of the study, real and synthetic ones together."""
        return max(
            len(of_seed.data) + max((job.planned_size for job in of_seed.jobs.values()), default=0)
            for of_seed in self.seeds
        )

    @property
    def are_drawn(self) -> bool:
        """Whether the data seeds draw their training images, rather than have the whole pool."""
        return any(len(of_seed.data) < len(self.pool) for of_seed in self.seeds)


def load_images(config: DictConfig, splits: DatasetSplits, validates: bool) -> StudyPlan:
    """The plan as far as images go: reads those of `splits` and draws the training images of each data seed.

    `validates` says whether validation images are needed.

    Raises `UserError` if a class has no image to test on, or none to validate on although this is needed.
    """
    study = config.study
    pool = training_set(splits.train, config.dataset.fit)
    held_out = _measurable(splits, study.split, config)
    validation = _measurable(splits, VALIDATION, config) if validates else None
    seeds = range(config.seed, config.seed + study.seeds)
    drawn = [SeedPlan(seed, few_shot_training_set(config, splits.train, seed)) for seed in seeds]
    return StudyPlan(pool, held_out, validation, drawn)


def _measurable(splits: DatasetSplits, split: str, config: DictConfig) -> LabelledImages:
    images, _ = readable(getattr(splits, split), split)
    check_measurable(images, split, config.dataset.num_folds)
    return images
