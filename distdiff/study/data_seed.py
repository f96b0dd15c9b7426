"""A study under one data seed: trains the guide, makes and measures the images of each row, trains and tests classifiers."""

from collections.abc import Callable, Iterable
from contextlib import nullcontext

from lightning.pytorch.loggers import Logger

from distdiff.classification.training import ClassifierTrainer
from distdiff.console.whole import Whole
from distdiff.data.images import LabelledImages
from distdiff.metrics.config import GUIDE
from distdiff.metrics.measuring import Measurer
from distdiff.metrics.views import GuideView
from distdiff.ranks.world import world
from distdiff.store.reading import read_expanded
from distdiff.study.expanding import Expanded, measured, read_made
from distdiff.study.identity import kept_measures
from distdiff.study.plan import SeedPlan, StudyPlan
from distdiff.study.rows import Row
from distdiff.study.runs import RunResult
from distdiff.study.steps import MAKE, MEASURE
from distdiff.study.tools import StudyTools
from distdiff.study.training import SEARCH, TRAIN, RowTraining
from distdiff.tracking.loggers import stage_logger


class DataSeed:
    """The rows of a study under the data seed of `of_seed`, made with `tools`.

    Stages are steps of `whole`, and are logged to `logger`. `begin` is called before something is made that is not yet
    there: the guide, images or a classifier.
    """

    def __init__(
        self,
        of_seed: SeedPlan,
        plan: StudyPlan,
        tools: StudyTools,
        whole: Whole,
        logger: Logger | None,
        begin: Callable[[], None] = lambda: None,
    ) -> None:
        self.of_seed = of_seed
        self.plan = plan
        self.tools = tools
        self.whole = whole
        self.logger = logger
        self.begin = begin
        self._expansions: dict[str, Expanded] = {}  # those that were measured, by `Row.images`

    def train_guide(self, names: Iterable[str]) -> None:
        """Trains the guide of the job's own keys, if one of the rows with these `names` needs it."""
        encoders, of_seed = self.tools.assembly.encoders, self.of_seed
        if not self.tools.reads_guide(of_seed, names):
            return
        if not encoders.is_ready(of_seed.data, of_seed.seed):
            self.begin()
        title = of_seed.title("guide")
        with self.whole.step(title) if encoders.trains else nullcontext(), self.tools.timer("guide"):
            encoders.encoder(of_seed.data, of_seed.seed, title)

    def make(self, name: str) -> None:
        """Makes the images of the row with this `name`, and trains its classifiers. Measures and tests nothing."""
        row, images = self.tools.rows[name], None
        if row.expands:
            self._make_images(row)
            job = self.of_seed.jobs[row.images]
            images = read_expanded(job.path, self.plan.pool.parts[0], job.contents)
        training = self._training(row, images)
        trainer = self._trainer(training, self.of_seed.finished[name])
        for number in self.of_seed.lacking()[name]:
            with self.tools.timer(f"train {name}"):
                training.train(trainer, number)

    def runs(self, name: str, measurer: Measurer) -> list[RunResult]:
        """The runs of the row with this `name`, one for each training seed, with the measures of the images by `measurer`.

        Runs that are in the study's table are not made again, and the others are added to it.
        """
        row, tools, of_seed = self.tools.rows[name], self.tools, self.of_seed
        # Another process may have added runs to the table since this study was planned.
        (finished,) = tools.table.find_all({name: of_seed.fingerprints[name]}).values()
        finished = [run or now for run, now in zip(of_seed.finished[name], finished, strict=True)]
        lacking = [number for number, run in enumerate(finished) if run is None]
        outdated = [run for run in finished if row.expands and run is not None and run.measured_by != tools.measured_by]
        expanded = self._expanded(row, measurer, bool(lacking)) if row.expands and (lacking or outdated) else None
        for run in outdated:
            self._measure_again(run, expanded)
        if not lacking:
            return finished
        training = self._training(row, None if expanded is None else expanded.images)
        if not all(training.is_trained(trainer, 0) for trainer in training.trainers):
            self.begin()
        trainer = self._trainer(training, finished)
        untrained = [number for number in lacking if not training.is_trained(trainer, number)]
        if untrained:
            self.begin()
        steps = len(untrained) * trainer.recipe_for(training.data).steps
        with self.whole.step(f"{training.title}: {TRAIN}", steps):
            for run in training.results(trainer, lacking, tools.timer):
                if expanded is not None:
                    self._note(run, expanded)
                finished[run.training_seed] = run
                if world().leads:
                    tools.table.add(of_seed.fingerprints[name][run.training_seed], name, run)
        return finished

    def _expanded(self, row: Row, measurer: Measurer, needed: bool) -> Expanded | None:
        """The images that a row adds, with their measures. Images that are not there are made if they are `needed`."""
        if row.images in self._expansions:
            return self._expansions[row.images]
        job = self.of_seed.jobs[row.images]
        if needed:
            if job.path not in {other.path for other in self._expansions.values()}:
                self._make_images(row)
        elif not job.is_found_done():
            return None
        self._expansions[row.images] = self._measure(row, measurer)
        return self._expansions[row.images]

    def _make_images(self, row: Row) -> None:
        """Makes the images of a row, with those of larger factors in the same directory."""
        title = self.of_seed.title(row.name)
        with self.whole.step(f"{title}: {MAKE}"), self.tools.timer(f"expand {row.folder}"):
            maker = self.of_seed.maker(row, self.tools.rows)
            if not maker.is_found_done():
                self.begin()
                self.tools.made.append(str(maker.path))
            maker.run(title, stage_logger(self.logger, f"expand/{row.folder}/seed{self.of_seed.seed}"))

    def _measure(self, row: Row, measurer: Measurer) -> Expanded:
        """Measures the images that a row adds, which are made."""
        job, data, tools = self.of_seed.jobs[row.images], self.of_seed.data, self.tools
        title = self.of_seed.title(row.name)
        images = read_made(job, row.folder, measurer.images, tools.config, tools.run_dir)
        with self.whole.step(f"{title}: {MEASURE}"), tools.timer("measure"):
            if GUIDE in measurer.features:
                guide = tools.assemblies[row.name].encoders.encoder(data, self.of_seed.seed, title)
                measurer.guided_by(GuideView(guide, data.fit, measurer.judge.device))
            return measured(job, images, measurer)

    def _training(self, row: Row, images: LabelledImages | None) -> RowTraining:
        """The training of a row on the real images and the row's own `images`, if it has any."""
        data, plan = self.of_seed.data, self.plan
        return RowTraining(
            row.name,
            self.of_seed.seed,
            data if images is None else data.with_part(images, images.identity),
            self.tools.trainers[row.name],
            plan.held_out,
            plan.validation,
            self.of_seed.title(row.name),
            self.logger,
        )

    def _trainer(self, training: RowTraining, finished: list[RunResult | None]) -> ClassifierTrainer:
        """The trainer with the row's settings: the only one, that of `finished` runs, or the best on validation images."""
        (trainer, *others) = training.trainers
        if not others:
            return trainer
        with self.whole.step(f"{training.title}: {SEARCH}"), self.tools.timer(f"search {training.name}"):
            return training.chosen_before(finished) or training.choose()

    def _note(self, run: RunResult, expanded: Expanded) -> None:
        """Notes of a run where its images are, and their measures."""
        run.expanded, run.measures, run.remarks = str(expanded.path), expanded.measures, expanded.remarks
        run.views, run.measured_by = expanded.views, self.tools.measured_by

    def _measure_again(self, run: RunResult, expanded: Expanded | None) -> None:
        """Brings a finished run, which was measured by other metrics, the measures of now, if its images are still there.

        If they are not, the run keeps those of its measures that would be the same.
        """
        if expanded is not None:
            self._note(run, expanded)
            return
        run.measures, run.views = kept_measures(self.tools.config, run), {}
        run.remarks = {name: words for name, words in run.remarks.items() if name in run.measures}
        self.tools.unmeasured += 1
