"""The whole study: for every seed and method, expand, measure, train and test; then compare."""

from pathlib import Path
from statistics import median

import pyarrow.parquet
from lightning.pytorch.loggers import Logger
from omegaconf import DictConfig

from distdiff.caching.stages import StageCache
from distdiff.classification.networks import ImageClassifier
from distdiff.classification.training import ClassifierTrainer, TrainingSet
from distdiff.config.composition import load_option, options
from distdiff.console.progress import console
from distdiff.data.images import DatasetSplits, LabelledImages, draw_few_shot
from distdiff.data.loading import load_dataset
from distdiff.errors import UserError
from distdiff.expansion.directory import METADATA, read_expanded
from distdiff.expansion.expander import Expanded, Expander
from distdiff.metrics.fidelity import measure
from distdiff.report.html import write_report
from distdiff.report.samples import sample_grid
from distdiff.report.table import print_results
from distdiff.study.results import ORIGINAL, MethodResult, SeedResult, StudyResults
from distdiff.study.timing import StageTimer
from distdiff.tracking.loggers import build_logger, finish, log_image, stage_logger, summarize

JUDGE_SEED = 0  # the judge belongs to the dataset, not to a study seed


class Study:
    """Runs the methods of `study.methods` at equal counts and equal optimizer steps, seed by seed."""

    def __init__(self, config: DictConfig, run_dir: Path) -> None:
        self.config = config
        self.run_dir = run_dir
        self.methods = checked_methods(config)
        self.cache = StageCache(config.paths.cache_dir)
        self.classifiers = ClassifierTrainer(config, self.cache)
        self.expander = Expander(config, self.classifiers, self.cache)
        self.timer = StageTimer()

    def run(self) -> StudyResults:
        """Writes results, report and sample grid into the run's directory, logs and prints them."""
        with self.timer("load data"):
            splits = load_dataset(self.config.dataset)
            pool_identity = splits.train.fingerprint()
        logger = build_logger(self.config, self.run_dir)
        try:
            results = self._compare(splits, pool_identity, logger)
            self._publish(results, splits, logger)
        finally:
            finish(logger)
        return results

    def _compare(self, splits: DatasetSplits, pool_identity: str, logger: Logger | None) -> StudyResults:
        rows = {method: MethodResult(method) for method in self.methods}
        pool = TrainingSet((splits.train,), (pool_identity,), self.config.dataset.fit)
        with self.timer("judge"):
            judge = self.classifiers.train(pool, JUDGE_SEED, "judge", steps=self.config.measure.judge_steps)
        for seed in range(self.config.seed, self.config.seed + self.config.study.seeds):
            images = draw_few_shot(splits.train, self.config.dataset.per_class, seed)
            data = TrainingSet((images,), (images.fingerprint(),), self.config.dataset.fit)
            with self.timer("guide"):
                self.expander.guide(data, seed, f"seed {seed}: ")
            for method, row in rows.items():
                row.seeds.append(self._one(method, seed, data, splits, judge, logger))
                _log_row(logger, row)
        return StudyResults(
            dataset=self.config.dataset.name,
            split=self.config.study.split,
            chosen=self.config.guidance.name,
            rows=list(rows.values()),
            timing=self.timer.seconds,
        )

    def _one(
        self, method: str, seed: int, data: TrainingSet, splits: DatasetSplits, judge: ImageClassifier, logger: Logger | None
    ) -> SeedResult:
        title = f"seed {seed}: {method}"
        result = SeedResult(seed, accuracy=0.0, num_train=0)
        training = data
        if method != ORIGINAL:
            with self.timer(f"expand {method}"):
                expanded = self._expand(method, seed, data, title, logger)
            images = read_expanded(expanded.path, splits.train.class_names, self.config.expansion.factor)
            training = data.with_part(images, f"{expanded.fingerprint}x{self.config.expansion.factor}")
            result.expanded = str(expanded.path)
            result.images_per_second = expanded.images_per_second
            with self.timer("measure"):
                self._measure(result, images, splits.train, judge)
        with self.timer(f"train {method}"):
            curves = stage_logger(logger, f"train/{method}/seed{seed}")
            classifier = self.classifiers.train(training, seed, f"{title}: train", curves)
        with self.timer("test"):
            result.accuracy = self.classifiers.accuracy(classifier, getattr(splits, self.config.study.split))
        result.num_train = len(training)
        return result

    def _expand(self, method: str, seed: int, data: TrainingSet, title: str, logger: Logger | None) -> Expanded:
        title = f"{title}: expand"
        if method == self.config.guidance.name:
            return self.expander.expand(data, self.config.guidance, seed, title)
        if method in options("guidance"):
            return self.expander.expand(data, load_option("guidance", method), seed, title)
        return self.expander.augment(data, method, seed, title)

    def _measure(self, result: SeedResult, images: LabelledImages, real: LabelledImages, judge: ImageClassifier) -> None:
        fidelity = measure(
            images, real, judge, self.config.classifier.input_size, self.config.dataset.fit, self.config.measure.num_neighbours
        )
        for name, value in fidelity.as_dict().items():
            setattr(result, name, value)
        columns = pyarrow.parquet.read_table(Path(result.expanded) / METADATA)
        for name in ("energy_before", "energy_after"):
            if name in columns.column_names:
                setattr(result, name, median(columns[name].to_pylist()))

    def _publish(self, results: StudyResults, splits: DatasetSplits, logger: Logger | None) -> None:
        with self.timer("report"):
            images = draw_few_shot(splits.train, self.config.dataset.per_class, self.config.seed)
            picture = self.run_dir / "samples.png"
            legend = sample_grid(results, images, self.config.generator.resolution, self.config.dataset.fit, picture)
            log_image(logger, "samples", picture)
            summarize(logger, _summary(results))
        results.write(self.run_dir)
        write_report(results, self.config, picture, legend, self.run_dir / "report.html")
        print_results(results)
        console.print(f"\nreport   {self.run_dir / 'report.html'}")
        console.print(f"results  {self.run_dir / 'results.json'}")


def checked_methods(config: DictConfig) -> list[str]:
    """`study.methods` without repetition; raises `UserError` for a name that is no method."""
    known = [ORIGINAL, *options("guidance"), *(name for name in options("augmentation") if name not in ("none", "default"))]
    for method in config.study.methods:
        if method not in known:
            raise UserError(f"study.methods={method} is not allowed: one of {', '.join(known)}")
    return list(dict.fromkeys(config.study.methods))


def _log_row(logger: Logger | None, row: MethodResult) -> None:
    if logger is None:
        return
    latest = row.seeds[-1]
    names = ("accuracy", "frechet_distance", "label_consistency", "coverage", "energy_before", "energy_after", "images_per_second")
    values = {f"{row.method}/{name}": getattr(latest, name) for name in names}
    logger.log_metrics({"seed": latest.seed} | {name: value for name, value in values.items() if value is not None})


def _summary(results: StudyResults) -> dict[str, float]:
    summary: dict[str, float] = {}
    for row in results.rows:
        summary[f"{row.method}/accuracy_mean"] = row.mean("accuracy")
    summary["accuracy_mean"] = (results.row(results.chosen) or results.rows[-1]).mean("accuracy")
    for baseline in (ORIGINAL, "none"):
        if difference := results.difference(results.chosen, baseline):
            summary[f"difference_to_{baseline}"] = difference.mean
    return summary
