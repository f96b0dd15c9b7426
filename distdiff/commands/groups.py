"""Every configuration group, and so every key, by the stage that reads it."""

from typing import Any

from omegaconf import DictConfig, OmegaConf

from distdiff.caching.config import PATHS
from distdiff.classification.config import AUGMENTATION, CLASSIFIER, TRAIN
from distdiff.config.checking import complete_option
from distdiff.config.options import load_options
from distdiff.data.config import DATASET
from distdiff.description.config import DESCRIBE
from distdiff.encoders.config import ENCODER
from distdiff.energy.config import ENERGY
from distdiff.expansion.config import EXPANSION
from distdiff.generator.config import GENERATOR
from distdiff.guidance.config import GUIDANCE
from distdiff.metrics.config import MEASURE, METRIC
from distdiff.pretraining.config import PRETRAIN
from distdiff.preview.config import PREVIEW
from distdiff.prototypes.config import PROTOTYPE
from distdiff.ranks.config import TRAINER
from distdiff.store.config import EXPORT
from distdiff.study.config import STUDY
from distdiff.tracking.config import LOGGER

GROUPS = (
    *(PATHS, DATASET, GENERATOR, ENCODER, PROTOTYPE, ENERGY, GUIDANCE, EXPANSION),
    *(CLASSIFIER, AUGMENTATION, TRAIN, METRIC, MEASURE, STUDY),
    *(DESCRIBE, PREVIEW, PRETRAIN, EXPORT, TRAINER, LOGGER),
)


def load_option(group: str, option: str, **keys: Any) -> DictConfig:
    """One option of a group of `conf/`, complete and checked, with other values for some of its keys.

    What it takes from elsewhere in a configuration (`${dataset.horizontal_flip}`) is left as it is. Raises `UserError`.
    """
    (known,) = [known for known in GROUPS if known.name == group]
    node = load_options([(group, option)])[group][option]
    OmegaConf.set_struct(node, False)
    return complete_option(known, OmegaConf.merge(node, keys))
