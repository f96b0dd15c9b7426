"""What identifies a run of a study in its table: all that can change the results, known before anything is made."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from omegaconf import DictConfig

from distdiff.caching.fingerprint import fingerprint
from distdiff.classification.config import weights_version
from distdiff.classification.training import ClassifierTrainer
from distdiff.expansion.assembly import Assembly
from distdiff.keys import option_identity
from distdiff.metrics.judge import JudgeTrainer
from distdiff.ranks.world import world
from distdiff.store.options import StorageOptions
from distdiff.study.plan import SeedPlan, StudyPlan
from distdiff.study.rows import Row
from distdiff.study.seeds import training_seed

REVISION = 1  # increase when a change in this package changes the results of a run


@dataclass(frozen=True)
class RunIdentities:
    """Identifies the runs of a study whose images are those of `plan`."""

    config: DictConfig
    plan: StudyPlan
    trainers: Mapping[str, list[ClassifierTrainer]]
    assemblies: Mapping[str, Assembly]
    judges: JudgeTrainer

    def of(self, row: Row, of_seed: SeedPlan) -> list[str]:
        """The fingerprints of a row's runs under a data seed, one for each training seed."""
        common, seed = self._of_study() | self._of_row(row, of_seed), of_seed.seed
        numbers = range(self.config.study.training_seeds)
        return [fingerprint(common | {"training_seed": training_seed(seed, number)}) for number in numbers]

    def _of_study(self) -> dict[str, Any]:
        validation = self.plan.validation
        return {
            "revision": REVISION,
            "ranks": world().size,
            "held_out": self.plan.held_out.identity,
            "validation": None if validation is None else validation.identity,
        }

    def _of_row(self, row: Row, of_seed: SeedPlan) -> dict[str, Any]:
        trainers, sizes = self.trainers[row.name], of_seed.sizes(row)
        training = trainers[0].ingredients(of_seed.data, of_seed.seed)
        recipes = [trainer.recipe.for_images(*sizes) for trainer in trainers]
        found = {
            "row": row.base,
            "training": {name: value for name, value in training.items() if name != "recipe"},
            "recipes": [
                recipe.identity(has_synthetic=row.expands) | weights_version(recipe.classifier) for recipe in recipes
            ],
        }
        if not row.expands:
            return found
        metrics = {name: option_identity(self.config.options.metric[name]) for name in self.config.measure.metrics}
        return found | {
            "expansion": self.assemblies[row.name].ingredients(of_seed.data, of_seed.seed),
            "factor": row.config.expansion.factor,
            "encoding": asdict(StorageOptions.of(row.config).encoding),
            "judge": self.judges.identity(self.plan.pool),
            "metrics": metrics,
        }
