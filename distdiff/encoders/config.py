"""The `encoder` keys, and the checks that are made before an encoder is loaded (no heavy imports)."""

from dataclasses import dataclass

from omegaconf import MISSING, DictConfig, OmegaConf

from distdiff.classification.config import check_classifiers, check_pretrained
from distdiff.encoders.location import MODEL, checkpoint_path, vision_model_path
from distdiff.errors import UserError
from distdiff.keys import TARGET, Group, key

GUIDE, MEMBERS = "guide", "members"
LITE0 = "efficientnet_lite0"
OURS = "distdiff.encoders."  # `model` and `checkpoint` are checked only for encoders of this package


@dataclass
class EncoderKeys:
    _target_: str = MISSING
    name: str = MISSING


@dataclass
class RecipeKeys:
    """The recipe of a classifier other than the downstream one, whose recipe therefore changes no image."""

    classifier: str = key(option_of="classifier")
    augmentation: str = key(option_of="augmentation")
    input_size: int | None = key(at_least=8)  # null: the input size of the classifier
    steps: int = key(at_least=1, at_most=10**9)  # beyond these ends, samplers of torch overflow
    batch_size: int = key(at_least=2, at_most=10**6)
    learning_rate: float = key(above=0, at_most=1e30)  # a larger one overflows float32 in AdamW
    weight_decay: float = key(at_least=0, at_most=1e30)


@dataclass
class GuideKeys(RecipeKeys):
    """The training recipe of the guide, the generated images that it learns from besides the real ones, and its members."""

    copies: int = key(0, at_least=0, at_most=10**6)  # of each real image, unguided
    members: int = key(1, at_least=1, at_most=1000)  # classifiers, which differ in their seeds


def check(encoder: DictConfig) -> None:
    """Raises `UserError` if `model` has no value, a path does not exist or holds no weights, or a package is missing."""
    if not encoder[TARGET].startswith(OURS):
        return
    if encoder[TARGET].startswith(f"{OURS}{LITE0}."):
        check_pretrained(f"encoder={LITE0}")
    if encoder.get("checkpoint") is not None:
        checkpoint_path(encoder.checkpoint)
        for own, alone in (("copies", 0), (MEMBERS, 1)):
            if encoder.get(GUIDE) is not None and encoder.guide[own] != alone:
                raise UserError(
                    f"encoder.guide.{own}={encoder.guide[own]} is not allowed with encoder.checkpoint: the guide is not trained"
                )
    if "model" in encoder:
        if OmegaConf.is_missing(encoder, "model") or encoder.model is None:
            raise UserError(f"{MODEL} has no value: give one, {MODEL}=...")
        vision_model_path(encoder.model)


def _check(config: DictConfig) -> None:
    check(config.encoder)
    check_classifiers(config)


ENCODER = Group(
    "encoder",
    EncoderKeys,
    options_have_keys=True,
    check=_check,
    paths=("model", "checkpoint"),
    hub_ids=("model",),
)
