"""Defines the keys that every dataset has, and checks them before any data loads.

There are no heavy imports here, so that the checks are quick. A dataset's other keys are arguments of its loader. Their
defaults are in the dataset's YAML file.
"""

from dataclasses import dataclass
from typing import Annotated, Any

from omegaconf import MISSING, DictConfig

from distdiff.caching.fingerprint import plain
from distdiff.data.naming import default_name
from distdiff.data.prompts import DEFAULT_TEMPLATE, check_names
from distdiff.data.reading.background import colour
from distdiff.data.reading.value_range import ValueRange
from distdiff.data.roots import check_root, check_root_is_there
from distdiff.errors import UserError
from distdiff.keys import LARGEST_SIDE, Group, Limits, key

# Fractions of a class's images, for loaders that carve missing splits from the training images.
ValidationFraction = Annotated[float, Limits(at_least=0, at_most=0.9)]  # with 0, there are no validation images
TestFraction = Annotated[float, Limits(above=0, at_most=0.9)]


@dataclass
class DatasetKeys:
    """The keys that every dataset has.

    A loader takes its own keys as arguments, and any of these keys that it needs.
    """

    _target_: str = MISSING
    name: str | None = None  # used in titles and directory names; if null, the name is taken from `hub_id` or `root`
    subject: str | None = None  # what the images show; a generator that `draws` something else causes a warning
    per_class: int | None = key(None, at_least=1)  # few-shot images per class; if null, all images are used
    # The side in pixels of drawn digits, and the largest that pretraining chooses itself. describe.py says how many images
    # are smaller. Everything else uses `generator.resolution` or `classifier.input_size`.
    image_size: int = key(at_least=8, at_most=LARGEST_SIDE)
    fit: str = key("crop", choices=("crop", "squash", "pad"))
    prompt_template: str = DEFAULT_TEMPLATE
    class_names: Any = None  # the words for classes in prompts: {class: words}, or a .json, .csv or .txt file
    prompts_file: str | None = None  # .json or .csv file with sentences for each class; a new image gets one sentence
    split_seed: int = key(0, at_least=0, at_most=2**32 - 1)  # draws validation images and folds, never test images
    num_folds: int | None = key(None, at_least=2)  # number of folds that the training images are split into
    fold: int = key(0, at_least=0)  # index of the fold that is used for validation
    fraction: float = key(1.0, above=0, at_most=1)  # fraction of every class's training images to use
    max_images: int | None = key(None, at_least=1)  # training images to use in all, drawn in proportion to class sizes
    indices: list[int] | None = key(None, at_least=0)  # positions of the training images to use
    drop_leaks: bool = False  # whether to train on no image that is also a validation or test image
    background: Any = "white"  # the colour shown where an image is transparent: text, or [red, green, blue]
    value_range: Any = "auto"  # grey values of more than 8 bits that are black and white: auto, full or [low, high]
    num_workers: int | None = key(None, at_least=1)  # number of reading threads; if null, a fair share of the cores
    cache_dir: str = "${paths.cache_dir}"  # holds unpacked archives and decoded images
    image_cache_gb: float = key("${paths.image_cache_gb}", at_least=0, at_most=1e6)
    horizontal_flip: bool = True  # whether an image keeps its label when it is mirrored


def check(dataset: DictConfig) -> None:
    """Sets `name` if it is null. Raises `UserError` for mistakes that the limits of single keys do not catch."""
    check_root(dataset)
    if "{}" not in dataset.prompt_template:
        raise UserError(
            f"dataset.prompt_template={dataset.prompt_template!r} is not allowed: it needs {{}} where the class name goes"
        )
    if dataset.name is None:
        dataset.name = default_name(dataset)
    check_names(dataset)
    check_folds(dataset.num_folds, dataset.fold)
    colour(plain(dataset.background))
    ValueRange.of(plain(dataset.value_range))
    check_root_is_there(dataset)


def check_folds(num_folds: int | None, fold: int) -> None:
    """Raises `UserError` for a fold that does not exist."""
    if num_folds is None and fold:
        raise UserError(f"dataset.fold={fold} is not allowed without dataset.num_folds, the number of folds")
    if num_folds is not None and fold >= num_folds:
        raise UserError(
            f"dataset.fold={fold} is not allowed: an integer from 0 to {num_folds - 1}, one less than "
            f"dataset.num_folds={num_folds}"
        )


DATASET = Group(
    "dataset",
    DatasetKeys,
    options_have_keys=True,
    check=lambda config: check(config.dataset),
    general_options=("imagefolder", "hub", "expanded", "parquet"),
    paths=("root", "class_names", "prompts_file", "cache_dir"),
)
