"""The `classifier`, `augmentation` and `train` keys."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from omegaconf import MISSING, DictConfig

from distdiff.errors import UserError
from distdiff.keys import Group, key
from distdiff.store.config import check_directories

# Which weights of a training are kept: those after the last step, or those with the best accuracy on validation images
# or, as in published protocols, on the test images themselves.
LAST, VALIDATION, BEST_ON_TEST = "last", "validation", "best_on_test"


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
    selection: str = key(LAST, choices=(LAST, VALIDATION, BEST_ON_TEST))
    ckpt_path: str | None = None  # a checkpoint of callbacks=checkpoint, from which the training is resumed
    split: str | None = key(None, choices=("test", "validation"))  # null: see the group's `defaults`


def check_train(config: DictConfig) -> None:
    """Raises `UserError` for keys that name no expanded data, and if weights would be chosen on images not tested on."""
    check_directories("train", "expanded")(config)
    train = config.train
    measured = ("study", config.study.split) if "study" in config else ("train", train.split)
    if train.selection == BEST_ON_TEST and measured[1] == "validation":
        raise UserError(
            f"train.selection={BEST_ON_TEST} is not allowed with {measured[0]}.split=validation, which is the default of a "
            f"multirun: settings would be chosen by test images; train.selection={VALIDATION}, or {measured[0]}.split=test"
        )


def unread_train(config: DictConfig) -> Mapping[str, str]:
    """The keys that only train.py reads, in the other commands."""
    if config.command == "run":
        return {
            "train.split": "study.split says on which images a study measures accuracy",
            "train.ckpt_path": "a study trains many classifiers; train.py resumes one",
        }
    if config.command == "measure":
        words = "measure.py trains the judge alone, which keeps the weights of its last step"
        return dict.fromkeys(("train.split", "train.ckpt_path", "train.selection"), words)
    return {}


CLASSIFIER = Group("classifier", ClassifierKeys, options_have_keys=True)
AUGMENTATION = Group("augmentation", AugmentationKeys, options_have_keys=True)
TRAIN = Group(
    "train",
    TrainKeys,
    check=check_train,
    unread=unread_train,
    paths=("expanded", "ckpt_path"),
    defaults={"split": ("test", "validation")},  # settings are chosen on validation data, and sweeps choose settings
    also_called={"max_steps": "train.steps", "max_epochs": "train.steps", "lr": "train.learning_rate"},
)
