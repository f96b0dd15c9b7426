"""The `classifier`, `augmentation` and `train` keys."""

from dataclasses import dataclass
from typing import Any

from omegaconf import MISSING

from distdiff.keys import Group, key
from distdiff.store.config import check_directories


@dataclass
class ClassifierKeys:
    _target_: str = MISSING
    name: str = MISSING
    input_size: int = key(at_least=8)


@dataclass
class AugmentationKeys:
    _target_: str = MISSING
    name: str = MISSING


@dataclass
class TrainKeys:
    steps: int = key(at_least=1, at_most=10**9)  # beyond these ends, samplers of torch overflow
    batch_size: int = key(at_least=2, at_most=10**6)
    learning_rate: float = key(above=0, at_most=1e30)  # a larger one overflows float32 in AdamW
    weight_decay: float = key(at_least=0, at_most=1e30)
    label_smoothing: float = key(0.0, at_least=0, at_most=1)
    synthetic_probability: float | None = key(at_least=0, at_most=1)  # null: every image is drawn equally often
    expanded: Any = None  # a directory of expanded data, or a list of them
    where: str | None = (
        None  # a condition on the metadata of `expanded`, such as energy_after < 1.1 and strength >= 0.5
    )


CLASSIFIER = Group("classifier", ClassifierKeys, options_have_keys=True)
AUGMENTATION = Group("augmentation", AugmentationKeys, options_have_keys=True)
TRAIN = Group(
    "train",
    TrainKeys,
    check=check_directories("train", "expanded"),
    paths=("expanded",),
    also_called={"max_steps": "train.steps", "max_epochs": "train.steps", "lr": "train.learning_rate"},
)
