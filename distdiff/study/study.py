"""The whole study: expands, measures, trains and tests for every seed and row, then compares."""

from pathlib import Path

from lightning.pytorch.loggers import Logger
from omegaconf import DictConfig

from distdiff.classification.config import BEST_ON_TEST
from distdiff.console.progress import console
from distdiff.console.stages import display
from distdiff.console.whole import Whole
from distdiff.metrics.measuring import Measurer, load_metrics
from distdiff.ranks.trainer import build_trainer
from distdiff.ranks.world import world
from distdiff.study.data_seed import DataSeed
from distdiff.study.methods import ORIGINAL
from distdiff.study.plan import SeedPlan, StudyPlan
from distdiff.study.planning import planned
from distdiff.study.portions import Portion, portions_of
from distdiff.study.results import StudyResults, measures_of
from distdiff.study.rows import chosen_row
from distdiff.study.runs import MethodResult
from distdiff.study.steps import JUDGE, TEST_JUDGE, study_steps
from distdiff.study.tools import StudyTools
from distdiff.study.workers import Workers
from distdiff.tracking.loggers import log_row
from distdiff.wording import counted


class Study:
    """Runs the rows of `study.methods` and `study.rows` seed by seed, with equal image counts.

    Rows also have equally many optimizer steps or, with `train.budget=epochs`, equally many epochs of their own images,
    unless their settings are chosen on validation images. Runs that are in the table `study.table` are not made again.
    """

    def __init__(self, config: DictConfig, run_dir: Path) -> None:
        self.config = config
        self.tools = StudyTools(config, run_dir)
        build_trainer(config.trainer)  # so that a missing device is reported now, not after the first stage
        self.metrics = load_metrics(config)
        self.measures = measures_of(self.metrics)
        self.measurer: Measurer | None = None  # what measured the images; known after `run`

    def plan(self) -> StudyPlan:
        """Loads the data and claims every expansion's directory before any training.

        A directory that belongs to another configuration is therefore reported early.
        """
        return planned(self.tools)

    def run(self, plan: StudyPlan, logger: Logger | None = None, task: str | None = None) -> StudyResults:
        """Carries out `plan` and writes `results.json` and `results.csv` into the run's directory. Logs to `logger`.

        `task` is the function, `module:function`, that further processes run (`Workers`); None if there are to be none.
        """
        tools = self.tools
        with display.whole(study_steps(plan, tools) if world().leads else []) as whole:
            portions = [portion for of_seed in plan.seeds for portion in portions_of(of_seed, tools.rows)]
            images = {row.images for row in tools.rows.values() if row.expands}
            most = max(1, len(images)) * len(plan.seeds)
            with Workers(self.config, tools.run_dir, portions, whole, task, most) as workers:
                results, judge_accuracy = self._carried_out(plan, workers, logger)
                for report in workers.reports():
                    report.add_to(tools.timer, tools.made)
        found = StudyResults(
            dataset=self.config.dataset.name,
            split=self.config.study.split,
            chosen=chosen_row(self.config, tools.rows),
            rows=list(results.values()),
            timing=tools.timer.seconds,
            found=self._found(plan.seeds[0]),
            measures=self.measures,
            judge_accuracy=judge_accuracy,
            selection=self.config.train.selection,
            best_on_test=tuple(name for name, row in tools.rows.items() if row.config.train.selection == BEST_ON_TEST),
            epochs=self._epochs(),
            may_end_early=any(each.running.may_end_early for of_row in tools.trainers.values() for each in of_row),
            are_drawn=plan.are_drawn,
            searched=tools.searched,
            leaks=plan.leaks,
            made=tuple(tools.made),
        )
        if world().leads:
            found.write(tools.run_dir)
        return found

    def make(self, portion: Portion, plan: StudyPlan, logger: Logger | None = None) -> None:
        """Makes the images of a portion's rows and trains their classifiers, which another process then finds.

        Logs to `logger`. If the study has a table, also measures, tests, and adds the runs to the table.
        """
        whole = Whole(())  # whose progress nobody sees
        data_seed = DataSeed(portion.of_seed, plan, self.tools, whole, logger)
        data_seed.train_guide(portion.rows)
        for name in portion.rows:
            data_seed.make(name)
        if self.tools.table.path is not None:
            measurer = self._measurer(plan, whole)
            for name in portion.rows:
                data_seed.runs(name, measurer)

    def _carried_out(
        self, plan: StudyPlan, workers: Workers, logger: Logger | None
    ) -> tuple[dict[str, MethodResult], float | None]:
        """The results of all rows by name, and the judge's accuracy on the held-out images."""
        tools, whole = self.tools, workers.whole
        results = {name: MethodResult(name, factor=row.factor, best=row.best) for name, row in tools.rows.items()}
        if not tools.judges.is_ready(plan.pool):
            workers.begin()
        self.measurer = measurer = self._measurer(plan, whole)
        seeds = {of_seed.seed: of_seed for of_seed in plan.seeds}
        begun: dict[int, DataSeed] = {}
        for seed, name in workers.in_turn([(seed, name) for seed in seeds for name in results], logger):
            if seed not in begun:
                begun[seed] = DataSeed(seeds[seed], plan, tools, whole, logger, workers.begin)
                begun[seed].train_guide(seeds[seed].lacking())
            for run in begun[seed].runs(name, measurer):
                results[name].runs.append(run)
                log_row(logger, name, run.figures(), {"seed": run.seed, "training_seed": run.training_seed})
        for result in results.values():
            result.runs.sort(key=lambda run: (run.seed, run.training_seed))
        if tools.unmeasured and world().leads:
            console.print(
                f"{counted(tools.unmeasured, 'run')} of {tools.table.path} lack some measures of now, and their images are "
                "gone: a dash stands for these measures."
            )
        with whole.step(TEST_JUDGE), tools.timer("measure"):
            judge_accuracy = world().once(lambda: measurer.judge_accuracy(plan.held_out))
        return results, judge_accuracy

    def _measurer(self, plan: StudyPlan, whole: Whole) -> Measurer:
        """Measures images with the judge, which is trained here."""
        with whole.step(JUDGE), self.tools.timer(JUDGE):
            judge = self.tools.judges.train(plan.pool)
        keys = self.config.measure
        return Measurer(self.metrics, judge, plan.pool.parts[0], plan.held_out, keys.features, keys.bootstrap)

    def _epochs(self) -> dict[str, int]:
        """The number of epochs of each row that trains for epochs of its own images, and whose settings are not searched."""
        recipes = {name: of_row[0].recipe for name, of_row in self.tools.trainers.items() if len(of_row) == 1}
        return {name: recipe.epochs for name, recipe in recipes.items() if recipe.epochs is not None}

    def _found(self, first: SeedPlan) -> dict[str, str]:
        """Maps each stage that needed a classifier but trained none to words on where the classifier came from."""
        tools, timer = self.tools, self.tools.timer
        guided = tools.assembly.encoders.trains
        classifiers = {JUDGE, *(["guide"] if guided else []), *(f"train {name}" for name in tools.rows)}
        found = {stage: "found in the cache" for stage in timer.seconds if not timer.made[stage]}
        if guided and world().size == 1 and f"train {ORIGINAL}" in found:
            of_guide = tools.assembly.encoders.trained(first.data, first.seed)
            if tools.trainers[ORIGINAL][0].fingerprint(first.data, first.seed) in of_guide:
                found[f"train {ORIGINAL}"] = "the guide, trained before"
        for name in tools.searched:
            if timer.made.get(f"search {name}") and f"train {name}" in found:
                found[f"train {name}"] = "trained in its search"
        return {stage: words for stage, words in found.items() if stage in classifiers}
