"""The `expansion` keys, and the checks on them that can run before anything loads."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from omegaconf import DictConfig, OmegaConf

from distdiff.errors import UserError
from distdiff.expansion.naming import row_name
from distdiff.expansion.strengths import strengths_of
from distdiff.guidance.config import UNGUIDED, check_steps
from distdiff.keys import LARGEST_SIDE, TARGET, Group, key
from distdiff.methods.config import groups_read, needs_of, reads_strength
from distdiff.selection.config import ALL, CLIP

HARD = "hard"
AUTO = "auto"
OF_ONE_JOB, STUDY = ("expand", "preview"), "run"  # commands; the others compare guided images with others
OF_ANY_KIND = ("distdiff.data.sources.imagefolder.load", "distdiff.data.sources.tables.load")
LARGER = 4  # times; from here on, a guide misses most of what an image shows
OF_ENERGY = ("guidance", "energy", "encoder", "prototype")  # groups that only some methods read


@dataclass
class ExpansionKeys:
    factor: int = key(at_least=1, at_most=10**6)
    tune: bool = False  # expand.py alone: chooses settings by accuracy on real images (the `tune` keys)
    balance: bool = False  # small classes get more copies, so that all classes have equally many images in total
    sources: str = key("all", choices=("all", "hard"))  # hard: copies are made only of the images the guide learnt last
    # The fraction of each class's images that counts as hard; TADA (Nguyen et al., 2025) has 30 to 40 %.
    hard_fraction: float = key(0.35, above=0, at_most=1)
    # A number, a list with one entry for each copy (a list that is too short is repeated), or {low: , high: }.
    strength: Any = key(above=0, at_most=1)
    batch_size: Any = key(
        at_least=1, at_most=10**6, words=(AUTO,)
    )  # auto: by memory on a GPU, else the generator's usual
    output_dir: str | None = None
    format: str = key("imagefolder", choices=("imagefolder", "webdataset", "parquet"))
    image_format: str = key("png", choices=("png", "jpeg", "webp"))
    quality: int | None = key(None, at_least=0, at_most=100)  # null: 95 for jpeg, which begins at 1; lossless for webp
    save_size: int | None = key(None, at_least=8, at_most=LARGEST_SIDE)  # null: the generator's resolution
    shard_size: int = key(1000, at_least=1)  # images per shard, for webdataset and parquet
    split: int | None = key(None, at_least=0)  # the index of this process's part of an array job, from 0
    total_split: int = key(1, at_least=1)
    # How many unreadable sources, or failed images, a run tolerates. A value below 1 is a fraction, a value from 1 on
    # is a count, and null sets no limit.
    max_failures: float | None = key(0.25, at_least=0)


def check(config: DictConfig) -> None:
    """Refuses an invalid `strength` or `split`, a strength without denoising steps, and a `quality` for PNG images.

    Also refuses `expansion.sources=hard` unless the guide is trained in this run.
    """
    keys = config.expansion
    if keys.tune and config.command != "expand":
        raise UserError(
            "expansion.tune=true is not allowed here: it is for experiments/expand.py; a study compares its rows"
        )
    check_strengths(keys.strength)
    if keys.quality is not None and keys.image_format == "png":
        raise UserError(
            f"expansion.quality={keys.quality} is not allowed: png is lossless; a quality is for "
            "expansion.image_format=jpeg or webp"
        )
    if keys.quality == 0 and keys.image_format == "jpeg":
        raise UserError("expansion.quality=0 is not allowed: jpeg begins at 1")
    check_split(keys.split, keys.total_split, config.command)
    encoder = config.encoder
    if keys.sources == HARD and not (encoder.name == "guide" and encoder.get("checkpoint") is None):
        raise UserError(
            "expansion.sources=hard is not allowed: it asks which images the guide learnt last, so it needs "
            "encoder=guide without a checkpoint"
        )
    for strength in strengths_of(keys.strength):
        check_steps(config, strength)


def unread(config: DictConfig) -> dict[str, str]:
    """The groups and keys that the chosen method, selection and sources do not read, each with a message.

    The result is empty for a study of several rows, because each row may read different keys.
    """
    if "study" in config and list(config.study.methods) != [row_name(config)]:
        return {}
    method, selects = config.method, config.selection.name != ALL
    reads = groups_read(method) | ({"energy", "encoder", "prototype"} if selects else set())
    reads |= {"encoder"} if config.expansion.sources == HARD else set()
    alone = {group: "" if selects or group == "guidance" else " without a selection" for group in OF_ENERGY}
    found = {
        group: f"method={method.name}{alone[group]} does not read the {group} keys"
        for group in OF_ENERGY
        if group not in reads
    }
    if not reads_strength(method):
        found["expansion.strength"] = f"method={method.name} does not read expansion.strength"
    return found


def warn(config: DictConfig) -> Iterator[str]:
    """Yields what `small_guide` says, where features shape images. A study asks for each of its rows."""
    if config.command != STUDY and (config.command not in OF_ONE_JOB or reads_features(config)):
        yield from small_guide(config)


def small_guide(config: DictConfig) -> Iterator[str]:
    """Warns that a small guide, trained on these images alone, sees large photos at a low resolution; names other encoders.

    Presets of known datasets choose the encoder themselves.
    """
    guide = config.encoder.get("guide")  # the guide's recipe; other encoders have none
    if guide is None or config.encoder.get("checkpoint") is not None or config.dataset[TARGET] not in OF_ANY_KIND:
        return
    seen = guide.input_size or config.options.classifier[guide.classifier].input_size
    if config.generator.resolution > LARGER * seen:
        yield (
            f"encoder=guide sees images of {config.generator.resolution} pixels at {seen}, and learns from them alone; for "
            "photos, try encoder=hf (facebook/dinov2-small), encoder=efficientnet_lite0 or encoder.guide.classifier=resnet50"
        )


def reads_features(config: DictConfig) -> bool:
    """Whether images depend on the encoder's features, which otherwise only measure the energies in their metadata."""
    keys, selection = config.expansion, config.selection
    guided = "guidance" in needs_of(config.method) and config.guidance.name != UNGUIDED
    return guided or (selection[TARGET] != CLIP and selection.name != ALL) or keys.sources == HARD or keys.tune


def check_strengths(strength: Any) -> None:
    """Refuses a strength that is neither a number, nor a list of numbers, nor a `{low, high}` range."""
    form = "a number above 0 and at most 1, a list of them, or {low: , high: }"
    if OmegaConf.is_dict(strength):
        if set(strength) != {"low", "high"} or strength.low > strength.high:
            raise UserError(f"expansion.strength={strength} is not allowed: {form}, low at most high")
    elif OmegaConf.is_list(strength):
        if not strength:
            raise UserError(f"expansion.strength={strength} is not allowed: {form}")
    elif isinstance(strength, (str, bool)) or strength is None:
        raise UserError(f"expansion.strength={strength} is not allowed: {form}")


def check_split(split: int | None, total_split: int, command: str) -> None:
    """Refuses a share `split` of the plan that is not between 0 and `total_split` − 1.

    In a command other than `expand`, any division of the plan is refused.
    """
    if split is None and total_split == 1:
        return
    if command != "expand":
        raise UserError(f"expansion.split={split} is not allowed here: splits are for experiments/expand.py")
    if split is None or split >= total_split:
        raise UserError(
            f"expansion.split={split} is not allowed: an integer from 0 to {total_split - 1}, one less than "
            f"expansion.total_split={total_split}"
        )


EXPANSION = Group(
    "expansion",
    ExpansionKeys,
    check=check,
    unread=unread,
    warn=warn,
    paths=("output_dir",),
    also_called={"batch_size": "expansion.batch_size", "num_images_per_prompt": "expansion.factor"},
)
