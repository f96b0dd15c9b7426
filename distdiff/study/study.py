"""The whole study: for every seed and method, expand, measure, train and test; then compare."""

from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet
from lightning.pytorch.loggers import Logger
from omegaconf import DictConfig

from distdiff.caching.stages import StageCache
from distdiff.classification.networks import ImageClassifier
from distdiff.classification.recipe import Recipe
from distdiff.classification.training import ClassifierTrainer, TrainingSet, few_shot_training_set, training_set
from distdiff.config.composition import load_option, options
from distdiff.console.progress import console
from distdiff.data.datasets import load_dataset
from distdiff.data.images import DatasetSplits, LabelledImages
from distdiff.data.readable import readable
from distdiff.data.splits.carving import check_measurable
from distdiff.expansion.assembly import Expander
from distdiff.expansion.job import ExpansionJob
from distdiff.metrics.fidelity import measure
from distdiff.metrics.judge import train_judge
from distdiff.ranks.trainer import build_trainer
from distdiff.ranks.world import world
from distdiff.report.html import write_report
from distdiff.report.samples import sample_grid
from distdiff.report.table import print_results
from distdiff.store.directory import METADATA, ExpandedDirectory, link, planned, read_expanded
from distdiff.store.energies import energy_table
from distdiff.study.methods import ORIGINAL
from distdiff.study.results import MEASURES, MethodResult, SeedResult, StudyResults
from distdiff.study.timing import StageTimer
from distdiff.tracking.loggers import log_image, stage_logger, summarize, tracked


@dataclass(frozen=True)
class SeedPlan:
    """One study seed: its training images, and an expansion job for each method that has one."""

    seed: int
    data: TrainingSet
    jobs: dict[str, ExpansionJob]


class Study:
    """Runs the methods of `study.methods` at equal counts and equal optimizer steps, seed by seed."""

    def __init__(self, config: DictConfig, run_dir: Path) -> None:
        self.config = config
        self.run_dir = run_dir
        self.methods = list(dict.fromkeys(config.study.methods))
        build_trainer(config.trainer)  # says now, not after the first stage, if there is no such device
        self.cache = StageCache(config.paths.cache_dir)
        self.classifiers = ClassifierTrainer(Recipe.of(config), config.trainer, self.cache)
        self.expander = Expander(config, self.cache)
        self.timer = StageTimer(self.cache)

    def run(self) -> StudyResults:
        """Writes results, report and sample grid into the run's directory, logs and prints them."""
        with self.timer("load data"):
            splits = load_dataset(self.config.dataset)
            pool = training_set(splits.train, self.config.dataset.fit)
            held_out, _ = readable(getattr(splits, self.config.study.split), self.config.study.split)
            check_measurable(held_out, self.config.study.split, self.config.dataset.num_folds)
            # Every directory is claimed before anything is trained: a clash must cost nothing.
            seeds = range(self.config.seed, self.config.seed + self.config.study.seeds)
            plans = [self._plan(splits, seed) for seed in seeds]
        with tracked(self.config, self.run_dir) as logger:
            results = self._compare(held_out, plans, pool, logger)
            if world().leads:
                self._publish(results, plans[0].data.parts[0], logger)
        return results

    def _compare(
        self, held_out: LabelledImages, plans: list[SeedPlan], pool: TrainingSet, logger: Logger | None
    ) -> StudyResults:
        rows = {method: MethodResult(method) for method in self.methods}
        with self.timer("judge"):
            judge = train_judge(self.classifiers, pool, self.config.measure.judge_steps)
        for plan in plans:
            with self.timer("guide"):
                self.expander.encoder(plan.data, plan.seed, f"seed {plan.seed}")
            for method, row in rows.items():
                row.seeds.append(self._one(method, plan, pool.parts[0], held_out, judge, logger))
                _log_row(logger, row)
        return StudyResults(
            dataset=self.config.dataset.name,
            split=self.config.study.split,
            chosen=self.config.guidance.name,
            rows=list(rows.values()),
            timing=self.timer.seconds,
            found=self._found(plans[0]),
        )

    def _found(self, plan: SeedPlan) -> dict[str, str]:
        """The stages in which nothing was trained, and where the classifier was from."""
        encoders = self.expander.encoder_source
        guided = encoders.trains
        same = guided and encoders.identity(plan.data, plan.seed) == self.classifiers.fingerprint(plan.data, plan.seed)
        classifiers = {"judge", *(["guide"] if guided else []), *(f"train {method}" for method in self.methods)}
        found = {stage: "found in the cache" for stage in self.timer.seconds if not self.timer.made[stage]}
        if same and world().size == 1 and f"train {ORIGINAL}" in found:
            found[f"train {ORIGINAL}"] = "the guide, trained before"
        return {stage: words for stage, words in found.items() if stage in classifiers}

    def _plan(self, splits: DatasetSplits, seed: int) -> SeedPlan:
        """Draws a seed's training images and claims the directories of its expansions."""
        data = few_shot_training_set(self.config, splits.train, seed)
        jobs = {method: self._job(method, data, seed) for method in self.methods if method != ORIGINAL}
        for job in jobs.values():
            job.claim()
        return SeedPlan(seed, data, jobs)

    def _job(self, method: str, data: TrainingSet, seed: int) -> ExpansionJob:
        if method == self.config.guidance.name:
            return self.expander.guided(data, self.config.guidance, seed)
        if method in options("guidance"):
            return self.expander.guided(data, load_option("guidance", method), seed)
        return self.expander.augmented(data, method, seed)

    def _one(
        self,
        method: str,
        plan: SeedPlan,
        real: LabelledImages,
        held_out: LabelledImages,
        judge: ImageClassifier,
        logger: Logger | None,
    ) -> SeedResult:
        title = f"seed {plan.seed}: {method}"
        result = SeedResult(plan.seed, accuracy=0.0, num_train=0)
        training = plan.data
        if job := plan.jobs.get(method):
            with self.timer(f"expand {method}"):
                job.run(title, stage_logger(logger, f"expand/{method}/seed{plan.seed}"))
            images = read_expanded(job.path, real, job.plan)
            training = plan.data.with_part(images, images.identity)
            result.expanded = str(job.path)
            if world().leads:
                link(self.run_dir / "expanded" / f"{method}-seed{plan.seed}", job.path)
            with self.timer("measure"):
                self._measure(result, job, images, real, judge)
        with self.timer(f"train {method}"):
            curves = stage_logger(logger, f"train/{method}/seed{plan.seed}")
            classifier = self.classifiers.train_together(training, plan.seed, f"{title}: train", curves)
        with self.timer("test"):
            result.accuracy = self.classifiers.accuracy(classifier, held_out, training.fit)
        result.num_train = len(training)
        return result

    def _measure(
        self,
        result: SeedResult,
        job: ExpansionJob,
        images: LabelledImages,
        real: LabelledImages,
        judge: ImageClassifier,
    ) -> None:
        size, fit = self.config.classifier.input_size, self.config.dataset.fit
        fidelity = world().once(lambda: measure(images, real, judge, size, fit, self.config.measure.num_neighbours))
        for name, value in fidelity.as_dict().items():
            setattr(result, name, value)
        result.images_per_second = ExpandedDirectory(job.path).images_per_second()
        energies = energy_table(planned(pyarrow.parquet.read_table(job.path / METADATA).to_pylist(), job.plan))
        result.energy_before = energies.get("energy_before_median")
        result.energy_after = energies.get("energy_after_median")

    def _publish(self, results: StudyResults, images: LabelledImages, logger: Logger | None) -> None:
        with self.timer("report"):
            picture = self.run_dir / "samples.png"
            legend = sample_grid(results, images, self.config.generator.resolution, self.config.dataset.fit, picture)
            log_image(logger, "samples", picture)
            summarize(logger, results.summary())
        results.write(self.run_dir)
        write_report(results, self.config, picture, legend, self.run_dir / "report.html")
        print_results(results)
        console.print(f"\nreport   {self.run_dir / 'report.html'}")
        console.print(f"results  {self.run_dir / 'results.json'}")


def run_study(config: DictConfig, run_dir: Path) -> None:
    """`experiments/run.py`."""
    Study(config, run_dir).run()


def _log_row(logger: Logger | None, row: MethodResult) -> None:
    if logger is None:
        return
    latest = row.seeds[-1]
    values = {f"{row.method}/{name}": getattr(latest, name) for name in ("accuracy", *MEASURES)}
    logger.log_metrics({"seed": latest.seed} | {name: value for name, value in values.items() if value is not None})
