"""The whole study: expands, measures, trains and tests for every seed and method, then compares."""

from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

from lightning.pytorch.loggers import Logger
from omegaconf import DictConfig

from distdiff.caching.stages import StageCache
from distdiff.classification.recipe import Recipe
from distdiff.classification.training import ClassifierTrainer, TrainingSet, few_shot_training_set, training_set
from distdiff.console.stages import display
from distdiff.console.whole import Step, Whole
from distdiff.data.datasets import load_dataset
from distdiff.data.images import DatasetSplits, LabelledImages, Leak
from distdiff.data.leaks import tell_leaks
from distdiff.data.readable import readable
from distdiff.data.splits.carving import check_measurable
from distdiff.expansion.assembly import Assembly
from distdiff.expansion.generators import Generators
from distdiff.expansion.job import ExpansionJob
from distdiff.expansion.naming import row_name
from distdiff.links import link
from distdiff.metrics.judge import SEED as JUDGE_SEED
from distdiff.metrics.judge import train_judge
from distdiff.metrics.measuring import Measurer, load_metrics
from distdiff.ranks.trainer import build_trainer
from distdiff.ranks.world import world
from distdiff.store.columns import METADATA
from distdiff.store.directory import ExpandedDirectory
from distdiff.store.energies import energy_table
from distdiff.store.names import safe_name
from distdiff.store.reading import planned, read_expanded
from distdiff.store.tables import read_table
from distdiff.study.methods import ORIGINAL
from distdiff.study.results import MethodResult, SeedResult, StudyResults, measures_of
from distdiff.study.rows import Row, rows_of
from distdiff.study.steps import MEASURE, guide_step, judge_step, judging_step, row_steps
from distdiff.study.timing import StageTimer
from distdiff.tracking.loggers import stage_logger

TEST_JUDGE = "test the judge"


@dataclass(frozen=True)
class SeedPlan:
    """The plan for one study seed: its training images, and an expansion job for each row that expands."""

    seed: int
    data: TrainingSet
    jobs: dict[str, ExpansionJob]


@dataclass(frozen=True)
class StudyPlan:
    """The plan of a study: the pool from which seeds draw training images, the images to test on, and a plan for each seed.

    `leaks` are those between the splits of the dataset.
    """

    pool: TrainingSet
    held_out: LabelledImages
    seeds: list[SeedPlan]
    leaks: tuple[Leak, ...] = ()


class Study:
    """Runs the rows of `study.methods` and `study.rows` seed by seed, with equal image counts and equal optimizer steps."""

    def __init__(self, config: DictConfig, run_dir: Path) -> None:
        self.config = config
        self.run_dir = run_dir
        self.rows = {row.name: row for row in rows_of(config)}
        build_trainer(config.trainer)  # so that a missing device is reported now, not after the first stage
        self.metrics = load_metrics(config)
        self.measures = measures_of(self.metrics)
        self.cache = StageCache(config.paths.cache_dir)
        generators = Generators()
        self.assemblies = {row.name: Assembly(row.config, self.cache, generators) for row in self.rows.values()}
        self.assembly = Assembly(config, self.cache, generators)
        self.classifiers = ClassifierTrainer(Recipe.of(config), config.trainer, self.cache)
        self.timer = StageTimer(self.cache)

    def plan(self) -> StudyPlan:
        """Loads the data and claims every expansion's directory before any training.

        A directory that belongs to another configuration is therefore reported early.
        """
        with self.timer("load data"):
            splits = load_dataset(self.config.dataset)
            pool = training_set(splits.train, self.config.dataset.fit)
            held_out, _ = readable(getattr(splits, self.config.study.split), self.config.study.split)
            check_measurable(held_out, self.config.study.split, self.config.dataset.num_folds)
            seeds = range(self.config.seed, self.config.seed + self.config.study.seeds)
            leaks = tell_leaks(replace(splits, train=pool.parts[0], **{self.config.study.split: held_out}))
            return StudyPlan(pool, held_out, [self._plan(splits, seed) for seed in seeds], leaks)

    def run(self, plan: StudyPlan, logger: Logger | None = None) -> StudyResults:
        """Carries out `plan` and writes `results.json` and `results.csv` into the run's directory. Logs to `logger`."""
        with display.whole(self._steps(plan) if world().leads else []) as whole:
            results, judge_accuracy = self._carried_out(plan, whole, logger)
        found = StudyResults(
            dataset=self.config.dataset.name,
            split=self.config.study.split,
            chosen=row_name(self.config),
            rows=list(results.values()),
            timing=self.timer.seconds,
            found=self._found(plan.seeds[0]),
            measures=self.measures,
            judge_accuracy=judge_accuracy,
            leaks=plan.leaks,
        )
        if world().leads:
            found.write(self.run_dir)
        return found

    def _carried_out(
        self, plan: StudyPlan, whole: Whole, logger: Logger | None
    ) -> tuple[dict[str, MethodResult], float | None]:
        """The results of all rows by name, and the judge's accuracy on the held-out images."""
        results = {name: MethodResult(name) for name in self.rows}
        with whole.step("judge"), self.timer("judge"):
            steps, input_size = self.config.measure.judge_steps, self.config.classifier.input_size
            judge = train_judge(self.classifiers, plan.pool, steps, input_size)
        measurer = Measurer(self.metrics, judge, plan.pool.parts[0])
        for seed_plan in plan.seeds:
            title = f"seed {seed_plan.seed}: guide"
            with whole.step(title) if self.assembly.encoders.trains else nullcontext(), self.timer("guide"):
                self.assembly.encoders.encoder(seed_plan.data, seed_plan.seed, title)
            for name, result in results.items():
                result.seeds.append(self._one(self.rows[name], seed_plan, plan.held_out, measurer, whole, logger))
                _log_row(logger, result)
        with whole.step(TEST_JUDGE), self.timer("measure"):
            judge_accuracy = world().once(lambda: measurer.judge_accuracy(plan.held_out))
        return results, judge_accuracy

    def _steps(self, plan: StudyPlan) -> Iterator[Step]:
        """The stages of the study, in the order in which they are carried out."""
        yield judge_step(self.classifiers.with_steps(self.config.measure.judge_steps), plan.pool, JUDGE_SEED)
        for of_seed in plan.seeds:
            if self.assembly.encoders.trains:
                ready = self.assembly.encoders.is_ready(of_seed.data, of_seed.seed)
                yield guide_step(f"seed {of_seed.seed}: guide", ready)
            for name, row in self.rows.items():
                title, job = f"seed {of_seed.seed}: {name}", of_seed.jobs.get(name)
                yield from row_steps(title, row, job, self._trainer_of(row), of_seed.data, of_seed.seed)
        yield judging_step(TEST_JUDGE, len(plan.held_out))

    def _trainer_of(self, row: Row) -> ClassifierTrainer:
        return ClassifierTrainer(Recipe.of(row.config), self.config.trainer, self.cache)

    def _found(self, first: SeedPlan) -> dict[str, str]:
        """Maps each stage that needed a classifier but trained none to words on where the classifier came from."""
        guided = self.assembly.encoders.trains
        classifiers = {"judge", *(["guide"] if guided else []), *(f"train {name}" for name in self.rows)}
        found = {stage: "found in the cache" for stage in self.timer.seconds if not self.timer.made[stage]}
        if guided and world().size == 1 and f"train {ORIGINAL}" in found:
            guide = self.assembly.encoders.identity(first.data, first.seed)
            if guide == self.classifiers.fingerprint(first.data, first.seed):
                found[f"train {ORIGINAL}"] = "the guide, trained before"
        return {stage: words for stage, words in found.items() if stage in classifiers}

    def _plan(self, splits: DatasetSplits, seed: int) -> SeedPlan:
        """Draws a seed's training images and claims the directories of its expansions."""
        data = few_shot_training_set(self.config, splits.train, seed)
        jobs = {name: self.assemblies[name].job(data, seed, name) for name, row in self.rows.items() if row.expands}
        for job in jobs.values():
            job.claim()
        return SeedPlan(seed, data, jobs)

    def _one(
        self,
        row: Row,
        plan: SeedPlan,
        held_out: LabelledImages,
        measurer: Measurer,
        whole: Whole,
        logger: Logger | None,
    ) -> SeedResult:
        name = row.name
        title = f"seed {plan.seed}: {name}"
        classifiers = self._trainer_of(row)
        result = SeedResult(plan.seed, accuracy=0.0, num_train=0)
        training = plan.data
        if job := plan.jobs.get(name):
            with whole.step(f"{title}: expand"), self.timer(f"expand {name}"):
                job.run(title, stage_logger(logger, f"expand/{name}/seed{plan.seed}"))
            images = read_expanded(job.path, measurer.images, job.contents)
            training = plan.data.with_part(images, images.identity)
            result.expanded = str(job.path)
            if world().leads:
                place = self.run_dir / "expanded" / f"{safe_name(name)}-seed{plan.seed}"
                link(place, job.path, self.config.paths.output_dir)
            with whole.step(f"{title}: {MEASURE}"), self.timer("measure"):
                result.measures, result.remarks = self._measured(job, images, measurer)
        with whole.step(f"{title}: train"):
            with self.timer(f"train {name}"):
                curves = stage_logger(logger, f"train/{name}/seed{plan.seed}")
                classifier = classifiers.train_together(training, plan.seed, f"{title}: train", curves)
            with self.timer("test"):
                result.accuracy = classifiers.accuracy(classifier, held_out, training.fit)
        result.num_train = len(training)
        return result

    def _measured(
        self, job: ExpansionJob, images: LabelledImages, measurer: Measurer
    ) -> tuple[dict[str, float], dict[str, str]]:
        """The measures of an expansion that apply to its method, and remarks on them."""
        measured = world().once(lambda: measurer.measured(images))
        measures: dict[str, float | None] = dict(measured.values)
        rows = read_table(job.path / METADATA).to_pylist()
        energies = energy_table(rows if job.contents is None else planned(rows, job.contents))
        measures["energy_before"] = energies.get("energy_before_median")
        measures["energy_after"] = energies.get("energy_after_median")
        measures["images_per_second"] = ExpandedDirectory(job.path).images_per_second()
        return {name: value for name, value in measures.items() if value is not None}, measured.remarks


def _log_row(logger: Logger | None, row: MethodResult) -> None:
    if logger is None:
        return
    latest = row.seeds[-1]
    logger.log_metrics(
        {"seed": latest.seed} | {f"{row.method}/{name}": value for name, value in latest.figures().items()}
    )
