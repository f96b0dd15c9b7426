"""The whole study: expands, measures, trains and tests for every seed and row, then compares."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

from lightning.pytorch.loggers import Logger
from omegaconf import DictConfig

from distdiff.caching.stages import StageCache
from distdiff.classification.config import BEST_ON_TEST
from distdiff.classification.loss import class_weights
from distdiff.classification.running import Running
from distdiff.classification.training import ClassifierTrainer
from distdiff.console.progress import console
from distdiff.console.stages import display
from distdiff.console.whole import Step, Whole
from distdiff.data.datasets import load_dataset
from distdiff.data.images import LabelledImages
from distdiff.data.leaks import tell_leaks
from distdiff.errors import UserError
from distdiff.expansion.assembly import Assembly
from distdiff.expansion.generators import Generators
from distdiff.expansion.job import ExpansionJob
from distdiff.metrics.config import GUIDE
from distdiff.metrics.judge import JudgeTrainer
from distdiff.metrics.measuring import Measurer, load_metrics
from distdiff.metrics.views import GuideView
from distdiff.ranks.trainer import build_trainer
from distdiff.ranks.world import world
from distdiff.store.directory import encoder_of
from distdiff.store.reading import read_expanded
from distdiff.study.expanding import Expanded, measured, read_made
from distdiff.study.identity import RunIdentities, kept_measures, measured_by
from distdiff.study.methods import BASELINES, ORIGINAL
from distdiff.study.plan import SeedPlan, StudyPlan, load_images
from distdiff.study.portions import Portion, portions_of
from distdiff.study.results import StudyResults, measures_of
from distdiff.study.rows import Row, chosen_row, rows_of
from distdiff.study.runs import MethodResult, RunResult
from distdiff.study.search import recipes_of
from distdiff.study.steps import (
    MAKE,
    MEASURE,
    guide_step,
    judge_step,
    judging_step,
    making_step,
    measuring_step,
    training_steps,
)
from distdiff.study.table import RunsTable
from distdiff.study.timing import StageTimer
from distdiff.study.training import SEARCH, TRAIN, RowTraining
from distdiff.study.workers import Workers, merge
from distdiff.tracking.loggers import log_row, stage_logger
from distdiff.wording import counted

TEST_JUDGE = "test the judge"


class Study:
    """Runs the rows of `study.methods` and `study.rows` seed by seed, with equal image counts.

    Rows also have equally many optimizer steps or, with `train.budget=epochs`, equally many epochs of their own images,
    unless their settings are chosen on validation images. Runs that are in the table `study.table` are not made again.
    """

    def __init__(self, config: DictConfig, run_dir: Path) -> None:
        self.config = config
        self.run_dir = run_dir
        self.rows = {row.name: row for row in rows_of(config)}
        build_trainer(config.trainer)  # so that a missing device is reported now, not after the first stage
        self.metrics = load_metrics(config)
        self.measures = measures_of(self.metrics)
        self.measured_by = measured_by(config)
        self.made: list[str] = []  # the directories of the expanded datasets of which images were made
        self.unmeasured = 0  # finished runs whose images are gone, and that lack some of the measures
        self.table = RunsTable(config.study.table)
        self.cache = StageCache(config.paths.cache_dir)
        generators = Generators()
        self.assemblies = {row.name: Assembly(row.config, self.cache, generators) for row in self.rows.values()}
        self.assembly = Assembly(config, self.cache, generators)
        self.judges = JudgeTrainer(config, self.cache)
        self.trainers: dict[str, list[ClassifierTrainer]] = {}  # from which each row's is chosen; known with the plan
        self.timer = StageTimer(self.cache)
        self.measurer: Measurer | None = None  # what measured the images; known after `run`

    @property
    def searched(self) -> tuple[str, ...]:
        """The rows whose settings are chosen on validation images."""
        return tuple(name for name, row in self.rows.items() if len(recipes_of(row, self.config)) > 1)

    def plan(self) -> StudyPlan:
        """Loads the data and claims every expansion's directory before any training.

        A directory that belongs to another configuration is therefore reported early.
        """
        with self.timer("load data"):
            splits = load_dataset(self.config.dataset)
            validates = bool(self.searched) or sum(row.base in BASELINES for row in self.rows.values()) > 1
            plan = load_images(self.config, splits, validates)
            plan = replace(plan, seeds=[replace(of_seed, jobs=self._jobs(of_seed)) for of_seed in plan.seeds])
            for name, row in self.rows.items():
                running = Running.of(row.config, splits, self.run_dir)
                recipes = recipes_of(row, self.config, plan.largest())
                class_weights(recipes[0], plan.pool.parts)  # weights that do not fit are refused before images are made
                self.trainers[name] = [
                    ClassifierTrainer(recipe, self.config.trainer, self.cache, running) for recipe in recipes
                ]
            leaks = tell_leaks(replace(splits, train=plan.pool.parts[0], **{self.config.study.split: plan.held_out}))
            identities = RunIdentities(self.config, plan, self.trainers, self.assemblies, self.judges)
            planned = [self._planned(of_seed, identities) for of_seed in plan.seeds]
            return replace(plan, seeds=planned, leaks=leaks)

    def run(self, plan: StudyPlan, logger: Logger | None = None, task: str | None = None) -> StudyResults:
        """Carries out `plan` and writes `results.json` and `results.csv` into the run's directory. Logs to `logger`.

        `task` is the function, `module:function`, that further processes run (`Workers`); None if there are to be none.
        """
        with display.whole(self._steps(plan) if world().leads else []) as whole:
            portions = [portion for of_seed in plan.seeds for portion in portions_of(of_seed, self.rows)]
            images = {row.images for row in self.rows.values() if row.expands}
            most = max(1, len(images)) * len(plan.seeds)
            with Workers(self.config, self.run_dir, portions, whole, task, most) as workers:
                results, judge_accuracy = self._carried_out(plan, workers, logger)
                merge(workers.reports(), self.timer, self.made)
        found = StudyResults(
            dataset=self.config.dataset.name,
            split=self.config.study.split,
            chosen=chosen_row(self.config, self.rows),
            rows=list(results.values()),
            timing=self.timer.seconds,
            found=self._found(plan.seeds[0]),
            measures=self.measures,
            judge_accuracy=judge_accuracy,
            selection=self.config.train.selection,
            best_on_test=tuple(name for name, row in self.rows.items() if row.config.train.selection == BEST_ON_TEST),
            epochs=self._epochs(),
            may_end_early=any(each.running.may_end_early for of_row in self.trainers.values() for each in of_row),
            are_drawn=plan.are_drawn,
            searched=self.searched,
            leaks=plan.leaks,
            made=tuple(self.made),
        )
        if world().leads:
            found.write(self.run_dir)
        return found

    def make(self, portion: Portion, plan: StudyPlan, logger: Logger | None = None) -> None:
        """Makes the images of a portion's rows and trains their classifiers, which another process then finds.

        Logs to `logger`. If the study has a table, also measures, tests, and adds the runs to the table.
        """
        of_seed, whole = portion.of_seed, Whole(())  # whose progress nobody sees
        if self._reads_guide(of_seed, portion.rows):
            self._train_guide(of_seed, whole)
        for name in portion.rows:
            row, images = self.rows[name], None
            title = f"seed {of_seed.seed}: {name}"
            if row.expands:
                self._make_images(row, of_seed, title, whole, logger)
                job = of_seed.jobs[row.images]
                images = read_expanded(job.path, plan.pool.parts[0], job.contents)
            training = self._training(row, plan, of_seed, images, title, logger)
            trainer = self._trainer(training, of_seed.finished[name], whole)
            for number in of_seed.lacking()[name]:
                with self.timer(f"train {name}"):
                    training.train(trainer, number)
        if self.table.path is not None:
            made: dict[str, Expanded] = {}
            measurer = self._measurer(plan, whole)
            for name in portion.rows:
                self._runs(self.rows[name], plan, of_seed, made, measurer, whole, logger)

    def _carried_out(
        self, plan: StudyPlan, workers: Workers, logger: Logger | None
    ) -> tuple[dict[str, MethodResult], float | None]:
        """The results of all rows by name, and the judge's accuracy on the held-out images."""
        results = {name: MethodResult(name, factor=row.factor, best=row.best) for name, row in self.rows.items()}
        whole = workers.whole
        if not self.judges.is_ready(plan.pool):
            workers.begin()
        self.measurer = measurer = self._measurer(plan, whole)
        seeds = {of_seed.seed: of_seed for of_seed in plan.seeds}
        made: dict[int, dict[str, Expanded]] = {}
        for seed, name in workers.in_turn([(seed, name) for seed in seeds for name in results], logger):
            of_seed = seeds[seed]
            if seed not in made:
                made[seed] = {}
                if self._reads_guide(of_seed, of_seed.lacking()):
                    if not self.assembly.encoders.is_ready(of_seed.data, seed):
                        workers.begin()
                    self._train_guide(of_seed, whole)
            for run in self._runs(self.rows[name], plan, of_seed, made[seed], measurer, whole, logger, workers.begin):
                results[name].runs.append(run)
                log_row(logger, name, run.figures(), {"seed": run.seed, "training_seed": run.training_seed})
        for result in results.values():
            result.runs.sort(key=lambda run: (run.seed, run.training_seed))
        if self.unmeasured and world().leads:
            console.print(
                f"{counted(self.unmeasured, 'run')} of {self.table.path} lack some measures of now, and their images are "
                "gone: a dash stands for these measures."
            )
        with whole.step(TEST_JUDGE), self.timer("measure"):
            judge_accuracy = world().once(lambda: measurer.judge_accuracy(plan.held_out))
        return results, judge_accuracy

    def _measurer(self, plan: StudyPlan, whole: Whole) -> Measurer:
        """Measures images with the judge, which is trained here."""
        with whole.step("judge"), self.timer("judge"):
            judge = self.judges.train(plan.pool)
        keys = self.config.measure
        return Measurer(self.metrics, judge, plan.pool.parts[0], plan.held_out, keys.features, keys.bootstrap)

    def _reads_guide(self, of_seed: SeedPlan, names: Iterable[str]) -> bool:
        """Whether the guide of the job's own keys makes or chooses images of a row with one of these `names`."""
        rows = [self.rows[name] for name in names if self.rows[name].expands]
        if not rows:
            return False
        guide = self.assembly.encoders.identity(of_seed.data, of_seed.seed)
        found = [of_seed.jobs[row.images].ingredients for row in rows]
        return any(guide in (encoder_of(each), each.get("sources", {}).get("guide")) for each in found)

    def _train_guide(self, of_seed: SeedPlan, whole: Whole) -> None:
        title = f"seed {of_seed.seed}: guide"
        with whole.step(title) if self.assembly.encoders.trains else nullcontext(), self.timer("guide"):
            self.assembly.encoders.encoder(of_seed.data, of_seed.seed, title)

    def _runs(
        self,
        row: Row,
        plan: StudyPlan,
        of_seed: SeedPlan,
        made: dict[str, Expanded],
        measurer: Measurer,
        whole: Whole,
        logger: Logger | None,
        begin: Callable[[], None] = lambda: None,
    ) -> list[RunResult]:
        """The runs of a row under one data seed, one for each training seed; `made` holds the seed's expansions so far.

        Calls `begin` before images are made or a classifier is trained.
        """
        # Another process may have added runs to the table since this study was planned.
        (finished,) = self.table.find_all({row.name: of_seed.fingerprints[row.name]}).values()
        finished = [run or now for run, now in zip(of_seed.finished[row.name], finished, strict=True)]
        lacking = [number for number, run in enumerate(finished) if run is None]
        outdated = [run for run in finished if row.expands and run is not None and run.measured_by != self.measured_by]
        title = f"seed {of_seed.seed}: {row.name}"
        if lacking and row.expands and row.images not in made:
            made[row.images] = self._expanded(row, of_seed, made, title, measurer, whole, logger, begin)
        elif outdated and row.images not in made and of_seed.jobs[row.images].is_found_done():
            made[row.images] = self._measured(row, of_seed, title, measurer, whole)
        expanded = made.get(row.images) if row.expands else None
        for run in outdated:
            self._measure_again(run, expanded)
        if not lacking:
            return finished
        images = None if expanded is None else expanded.images
        training = self._training(row, plan, of_seed, images, title, logger)
        if not all(training.is_trained(trainer, 0) for trainer in training.trainers):
            begin()
        trainer = self._trainer(training, finished, whole)
        if not all(training.is_trained(trainer, number) for number in lacking):
            begin()
        with whole.step(f"{title}: {TRAIN}"):
            for run in training.results(trainer, lacking, self.timer):
                if expanded is not None:
                    self._note(run, expanded)
                finished[run.training_seed] = run
                if world().leads:
                    self.table.add(of_seed.fingerprints[row.name][run.training_seed], row.name, run)
        return finished

    def _training(
        self,
        row: Row,
        plan: StudyPlan,
        of_seed: SeedPlan,
        images: LabelledImages | None,
        title: str,
        logger: Logger | None,
    ) -> RowTraining:
        """The training of a row under one data seed, on the real images and the row's own `images`, if it has any."""
        data = of_seed.data if images is None else of_seed.data.with_part(images, images.identity)
        return RowTraining(
            row.name, of_seed.seed, data, self.trainers[row.name], plan.held_out, plan.validation, title, logger
        )

    def _trainer(self, training: RowTraining, finished: list[RunResult | None], whole: Whole) -> ClassifierTrainer:
        """The trainer with the row's settings: the only one, that of `finished` runs, or the best on validation images."""
        (trainer, *others) = training.trainers
        if not others:
            return trainer
        with whole.step(f"{training.title}: {SEARCH}"), self.timer(f"search {training.name}"):
            return training.chosen_before(finished) or training.choose()

    def _note(self, run: RunResult, expanded: Expanded) -> None:
        """Notes of a run where its images are, and their measures."""
        run.expanded, run.measures, run.remarks = str(expanded.path), expanded.measures, expanded.remarks
        run.views, run.measured_by = expanded.views, self.measured_by

    def _measure_again(self, run: RunResult, expanded: Expanded | None) -> None:
        """Brings a finished run, which was measured by other metrics, the measures of now, if its images are still there.

        If they are not, the run keeps those of its measures that would be the same.
        """
        if expanded is not None:
            self._note(run, expanded)
            return
        run.measures, run.views = kept_measures(self.config, run), {}
        run.remarks = {name: words for name, words in run.remarks.items() if name in run.measures}
        self.unmeasured += 1

    def _expanded(
        self,
        row: Row,
        of_seed: SeedPlan,
        made: dict[str, Expanded],
        title: str,
        measurer: Measurer,
        whole: Whole,
        logger: Logger | None,
        begin: Callable[[], None],
    ) -> Expanded:
        """Makes and measures the images that a row adds under one data seed, with those of larger factors."""
        job = of_seed.jobs[row.images]
        if job.path not in {other.path for other in made.values()}:
            self._make_images(row, of_seed, title, whole, logger, begin)
        return self._measured(row, of_seed, title, measurer, whole)

    def _make_images(
        self,
        row: Row,
        of_seed: SeedPlan,
        title: str,
        whole: Whole,
        logger: Logger | None,
        begin: Callable[[], None] = lambda: None,
    ) -> None:
        with whole.step(f"{title}: {MAKE}"), self.timer(f"expand {row.folder}"):
            maker = of_seed.maker(row, self.rows)
            if not maker.is_found_done():
                begin()
                self.made.append(str(maker.path))
            maker.run(title, stage_logger(logger, f"expand/{row.folder}/seed{of_seed.seed}"))

    def _measured(self, row: Row, of_seed: SeedPlan, title: str, measurer: Measurer, whole: Whole) -> Expanded:
        """Measures the images that a row adds under one data seed, which are made."""
        job = of_seed.jobs[row.images]
        images = read_made(job, row.folder, measurer.images, self.config, self.run_dir)
        with whole.step(f"{title}: {MEASURE}"), self.timer("measure"):
            if GUIDE in measurer.features:
                guide = self.assemblies[row.name].encoders.encoder(of_seed.data, of_seed.seed, title)
                measurer.guided_by(GuideView(guide, of_seed.data.fit, measurer.judge.device))
            return measured(job, images, measurer)

    def _steps(self, plan: StudyPlan) -> Iterator[Step]:
        """The stages of the study, in the order in which they are carried out."""
        yield judge_step(self.judges.is_ready(plan.pool))
        for of_seed in plan.seeds:
            lacking = of_seed.lacking()
            if self.assembly.encoders.trains and self._reads_guide(of_seed, lacking):
                ready = self.assembly.encoders.is_ready(of_seed.data, of_seed.seed)
                yield guide_step(f"seed {of_seed.seed}: guide", ready)
            made, paths = set(), set()
            for name, numbers in lacking.items():
                title, row = f"seed {of_seed.seed}: {name}", self.rows[name]
                if row.expands and row.images not in made:
                    job = of_seed.jobs[row.images]
                    if job.path not in paths:
                        yield making_step(title, row, of_seed.maker(row, self.rows))
                    yield measuring_step(title, job)
                    made.add(row.images)
                    paths.add(job.path)
                yield from training_steps(title, row, self.trainers[name], of_seed, numbers)
        yield judging_step(TEST_JUDGE, len(plan.held_out))

    def _epochs(self) -> dict[str, int]:
        """The number of epochs of each row that trains for epochs of its own images, and whose settings are not searched."""
        recipes = {name: of_row[0].recipe for name, of_row in self.trainers.items() if len(of_row) == 1}
        return {name: recipe.epochs for name, recipe in recipes.items() if recipe.epochs is not None}

    def _found(self, first: SeedPlan) -> dict[str, str]:
        """Maps each stage that needed a classifier but trained none to words on where the classifier came from."""
        guided = self.assembly.encoders.trains
        classifiers = {"judge", *(["guide"] if guided else []), *(f"train {name}" for name in self.rows)}
        found = {stage: "found in the cache" for stage in self.timer.seconds if not self.timer.made[stage]}
        if guided and world().size == 1 and f"train {ORIGINAL}" in found:
            guide = self.assembly.encoders.identity(first.data, first.seed)
            if guide == self.trainers[ORIGINAL][0].fingerprint(first.data, first.seed):
                found[f"train {ORIGINAL}"] = "the guide, trained before"
        for name in self.searched:
            if self.timer.made.get(f"search {name}") and f"train {name}" in found:
                found[f"train {name}"] = "trained in its search"
        return {stage: words for stage, words in found.items() if stage in classifiers}

    def _jobs(self, of_seed: SeedPlan) -> dict[str, ExpansionJob]:
        """The expansions of all rows under a data seed, by `Row.images`.

        Raises `UserError` for several factors of a method that makes the copies of a source together.
        """
        jobs: dict[str, ExpansionJob] = {}
        for name, row in self.rows.items():
            if row.expands and row.images not in jobs:
                jobs[row.images] = self.assemblies[name].job(of_seed.data, of_seed.seed, row.made_by, row.folder)
                if row.factor is not None and jobs[row.images].method.together:
                    raise UserError(
                        f"study.factors={list(self.config.study.factors)} is not allowed with the row {row.base}: its method "
                        "makes the copies of a source together, so those of a smaller factor are other ones; give each "
                        "factor a row of its own, 'study.rows={<name>: [expansion.factor=<factor>, ...]}'"
                    )
        return jobs

    def _planned(self, of_seed: SeedPlan, identities: RunIdentities) -> SeedPlan:
        """The seed's plan with the runs that are in the table. The directories of the other runs' images are claimed."""
        fingerprints = {
            name: identities.of(row, of_seed) if self.table.path else [""] * self.config.study.training_seeds
            for name, row in self.rows.items()
        }
        of_seed = replace(of_seed, fingerprints=fingerprints, finished=self.table.find_all(fingerprints))
        for images in {self.rows[name].images: None for name in of_seed.lacking() if self.rows[name].expands}:
            of_seed.jobs[images].claim()
        return of_seed
