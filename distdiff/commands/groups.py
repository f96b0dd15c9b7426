"""Every configuration group, and so every key, by the stage that reads it."""

from distdiff.caching.config import PATHS
from distdiff.classification.config import AUGMENTATION, CLASSIFIER, TRAIN
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
