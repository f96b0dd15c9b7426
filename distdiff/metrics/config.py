"""The `metric` keys that every metric has, and the `measure` keys."""

from dataclasses import dataclass

from omegaconf import MISSING, DictConfig

from distdiff.classification.config import PRETRAINED
from distdiff.errors import UserError
from distdiff.keys import NAME, Group, key
from distdiff.store.config import check_directories
from distdiff.wording import some

JUDGE, GUIDE, PIXELS = FEATURES = ("judge", "guide", "pixels")
TRAINING, HELD_OUT = "training", "held_out"  # the sets of real images with which images are compared


@dataclass
class MetricKeys:
    _target_: str = MISSING
    name: str = MISSING


@dataclass
class MeasureKeys:
    expanded: str | None = None
    where: str | None = None  # a condition on the metadata of `expanded`
    metrics: list[str] = key(option_of="metric")
    features: list[str] = key(choices=FEATURES)
    bootstrap: int = key(at_least=0, at_most=10**5)  # resamples; more of 10,000 images do not fit into memory
    judge_classifier: str = key(option_of="classifier")
    judge_augmentation: str = key(option_of="augmentation")
    judge_steps: int = key(at_least=1, at_most=10**9)  # beyond, samplers of torch overflow


LEAST_ACCURACY = 0.6  # of a judge whose measures stand without a remark


def check(config: DictConfig) -> None:
    """Raises `UserError` if `measure.expanded` is no expanded dataset, or if the judge would see the features that guide."""
    check_directories("measure", "expanded")(config)
    if not config.measure.features:
        raise UserError(f"measure.features=[] is not allowed: one or more of {some(FEATURES)}")
    named, judge = config.options.classifier, config.measure.judge_classifier
    guides = [config.encoder[NAME]] if "encoder" in config else []
    if guides and config.encoder.get("checkpoint") is None and (guide := config.encoder.get("guide")):
        guides = [guide.classifier] if named[guide.classifier].get(PRETRAINED) else []
    if named[judge].get(PRETRAINED) and judge in guides:
        raise UserError(
            f"measure.judge_classifier={judge} is not allowed: its pretrained features also guide "
            f"(encoder={config.encoder[NAME]}), and a judge needs others, such as measure.judge_classifier=small_resnet"
        )


METRIC = Group("metric", MetricKeys, options_have_keys=True)
MEASURE = Group(
    "measure",
    MeasureKeys,
    check=check,
    paths=("expanded",),
    also_called={"num_neighbours": "options.metric.coverage.num_neighbours"},
)
