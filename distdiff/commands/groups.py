"""All configuration groups, and so all keys, in the order of the stages that read them."""

from dataclasses import replace

from omegaconf import DictConfig

from distdiff.benchmark.config import BENCHMARK
from distdiff.caching.config import PATHS
from distdiff.classification.callback_keys import CALLBACKS
from distdiff.classification.config import AUGMENTATION, CLASSIFIER, OPTIMIZER, TRAIN
from distdiff.data.config import DATASET
from distdiff.description.config import DESCRIBE
from distdiff.encoders.config import ENCODER
from distdiff.energy.config import ENERGY
from distdiff.expansion.config import EXPANSION
from distdiff.generator.config import GENERATOR
from distdiff.guidance.config import GUIDANCE
from distdiff.methods.config import METHOD
from distdiff.metrics.config import MEASURE, METRIC
from distdiff.pretraining.config import PRETRAIN
from distdiff.preview.config import PREVIEW
from distdiff.prototypes.config import PROTOTYPE
from distdiff.ranks.config import TRAINER
from distdiff.selection.config import SELECTION
from distdiff.store.config import EXPORT, check_condition
from distdiff.study.config import STUDY
from distdiff.tracking.config import DASHBOARD, LOGGER
from distdiff.tuning.config import TUNE


def check_dataset(config: DictConfig) -> None:
    """Checks the `dataset` keys, including `dataset.where` of `dataset=expanded`, which only `distdiff.store` can check."""
    DATASET.check(config)
    check_condition(config)


GROUPS = (
    *(
        PATHS,
        replace(DATASET, check=check_dataset),
        GENERATOR,
        ENCODER,
        PROTOTYPE,
        ENERGY,
        GUIDANCE,
        METHOD,
        SELECTION,
        EXPANSION,
        TUNE,
    ),
    *(CLASSIFIER, AUGMENTATION, OPTIMIZER, TRAIN, CALLBACKS, METRIC, MEASURE, STUDY),
    *(DESCRIBE, PREVIEW, BENCHMARK, PRETRAIN, EXPORT, TRAINER, LOGGER, DASHBOARD),
)
