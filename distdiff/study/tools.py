"""What all data seeds of a study share: its rows, what makes and trains on their images, and what keeps their runs."""

from collections.abc import Iterable
from pathlib import Path

from omegaconf import DictConfig

from distdiff.caching.stages import StageCache
from distdiff.classification.training import ClassifierTrainer
from distdiff.cli.job import is_swept
from distdiff.expansion.assembly import Assembly
from distdiff.expansion.generators import Generators
from distdiff.metrics.judge import JudgeTrainer
from distdiff.store.directory import encoder_of
from distdiff.study.identity import measured_by
from distdiff.study.plan import SeedPlan
from distdiff.study.rows import needs_generator, rows_of
from distdiff.study.search import recipes_of
from distdiff.study.table import RunsTable
from distdiff.study.timing import StageTimer


class StudyTools:
    """The rows of a study by name, an assembly for each, and one with the job's own keys; cache, judge, table and timer.

    - `trainers`: those of each row, from which one is chosen; planning the study fills them in.
    - `measured_by`: what identifies the measures of now.
    - `made`: the directories of the expanded datasets of which images were made.
    - `unmeasured`: the number of finished runs whose images are gone, and that lack some of the measures.
    """

    def __init__(self, config: DictConfig, run_dir: Path) -> None:
        self.config = config
        self.run_dir = run_dir
        self.rows = {row.name: row for row in rows_of(config)}
        self.measured_by = measured_by(config)
        self.table = RunsTable(config.study.table)
        self.cache = StageCache(config.paths.cache_dir)
        generators = Generators(keeps_beginnings=sum(map(needs_generator, self.rows.values())) > 1 or is_swept())
        self.assemblies = {row.name: Assembly(row.config, self.cache, generators) for row in self.rows.values()}
        self.assembly = Assembly(config, self.cache, generators)
        self.judges = JudgeTrainer(config, self.cache)
        self.trainers: dict[str, list[ClassifierTrainer]] = {}
        self.timer = StageTimer(self.cache)
        self.made: list[str] = []
        self.unmeasured = 0

    @property
    def searched(self) -> tuple[str, ...]:
        """The rows whose settings are chosen on validation images."""
        return tuple(name for name, row in self.rows.items() if len(recipes_of(row, self.config)) > 1)

    def reads_guide(self, of_seed: SeedPlan, names: Iterable[str]) -> bool:
        """Whether the guide of the job's own keys makes or chooses images of a row with one of these `names`."""
        rows = [self.rows[name] for name in names if self.rows[name].expands]
        if not rows:
            return False
        guide = self.assembly.encoders.identity(of_seed.data, of_seed.seed)
        found = [of_seed.jobs[row.images].ingredients for row in rows]
        return any(guide in (encoder_of(each), each.get("sources", {}).get("guide")) for each in found)
