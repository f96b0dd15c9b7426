"""What identifies a run of a study in its table: all that can change the results, known before anything is made."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from omegaconf import DictConfig

from distdiff.caching.fingerprint import fingerprint
from distdiff.classification.config import weights_version
from distdiff.classification.training import ClassifierTrainer
from distdiff.expansion.assembly import Assembly
from distdiff.keys import TARGET, option_identity
from distdiff.metrics.config import JUDGE
from distdiff.metrics.judge import JudgeTrainer
from distdiff.ranks.world import world
from distdiff.seeds import training_seed
from distdiff.store.options import StorageOptions
from distdiff.study.measures import OF_EVERY_EXPANSION
from distdiff.study.plan import SeedPlan, StudyPlan
from distdiff.study.rows import Row
from distdiff.study.runs import RunResult

REVISION = 1  # increase when a change in this package changes the results of a run
MEASURES_REVISION = 1  # increase when a change in `distdiff.metrics` changes the values of metrics
# What runs of earlier versions were measured by, as a part of their fingerprint. It stays in every fingerprint, so that
# their lines are found; what a run is measured by is now told by `measured_by`, beside its measures.
FIRST_METRICS: Mapping[str, Mapping[str, Any]] = {
    "frechet_distance": {TARGET: "distdiff.metrics.frechet_distance.FrechetDistance"},
    "label_consistency": {TARGET: "distdiff.metrics.label_consistency.LabelConsistency"},
    "coverage": {TARGET: "distdiff.metrics.coverage.Coverage", "num_neighbours": 5},
}


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
        return found | {
            "expansion": self.assemblies[row.name].ingredients(of_seed.data, of_seed.seed),
            "factor": row.config.expansion.factor,
            "encoding": asdict(StorageOptions.of(row.config).encoding),
            "judge": self.judges.identity(self.plan.pool),
            "metrics": FIRST_METRICS,
        }


def measured_by(config: DictConfig) -> str:
    """What identifies the measures of a run, besides its images and the judge."""
    measure = config.measure
    return fingerprint(
        {
            "revision": MEASURES_REVISION,
            "metrics": {name: option_identity(config.options.metric[name]) for name in measure.metrics},
            "features": list(measure.features),
            "bootstrap": measure.bootstrap,
        }
    )


def kept_measures(config: DictConfig, run: RunResult) -> dict[str, float]:
    """The measures of a finished run that are those which the configuration asks for, although others may be missing."""
    if run.measured_by == measured_by(config):
        return run.measures
    options = config.options.metric
    same = {
        name
        for name, identity in FIRST_METRICS.items()
        if run.measured_by is None and name in config.measure.metrics and option_identity(options[name]) == identity
    }
    kept = same | OF_EVERY_EXPANSION.keys() if config.measure.features[0] == JUDGE else OF_EVERY_EXPANSION.keys()
    return {name: value for name, value in run.measures.items() if name in kept}
