"""The keys that every dataset has, and the checks made before anything loads (no heavy imports).

A dataset's own keys are its loader's arguments; its YAML file has their defaults.
"""

from dataclasses import dataclass
from typing import Annotated, Any

from omegaconf import MISSING, DictConfig

from distdiff.caching.fingerprint import plain
from distdiff.data.naming import default_name
from distdiff.data.prompts import check_names
from distdiff.data.reading.background import colour
from distdiff.data.roots import check_root, check_root_is_there
from distdiff.errors import UserError
from distdiff.keys import Group, Limits, key

# Fractions of a class's images, for loaders that carve the splits that are missing.
ValidationFraction = Annotated[float, Limits(at_least=0, at_most=0.9)]  # 0: no validation images
TestFraction = Annotated[float, Limits(above=0, at_most=0.9)]


@dataclass
class DatasetKeys:
    """The keys that every dataset has. A loader takes those that it needs as arguments, beside its own keys."""

    _target_: str = MISSING
    name: str | None = None  # in titles and directory names; null: taken from `root` or `hub_id`
    subject: str | None = None  # what the images show, if it is the one thing that a generator `draws`
    per_class: int | None = key(None, at_least=1)  # few-shot images a class; null takes all
    # The size of renders, and below which describe.py counts images; the rest uses `generator.resolution` or
    # `classifier.input_size`.
    image_size: int = key(at_least=8)
    fit: str = key("crop", choices=("crop", "squash", "pad"))
    prompt_template: str = "a photo of a {}."
    class_names: Any = None  # the words a prompt uses: {class: words}, or a .json, .csv or .txt file of them
    prompts_file: str | None = None  # several sentences a class, .json or .csv: one is drawn for each new image
    split_seed: int = key(0, at_least=0, at_most=2**32 - 1)  # draws validation images and folds, never test images
    num_folds: int | None = key(None, at_least=2)  # splits the training images into folds; `fold` is for validation
    fold: int = key(0, at_least=0)
    fraction: float = key(1.0, above=0, at_most=1)  # of every class's training images
    max_images: int | None = key(None, at_least=1)  # training images in all, in proportion to the classes
    indices: list[int] | None = key(None, at_least=0)  # positions of the training images to use
    background: Any = "white"  # shown where an image is transparent: a colour, or [red, green, blue]
    num_workers: int | None = key(None, at_least=1)  # threads that read images; null: a fair share of the cores
    cache_dir: str = "${paths.cache_dir}"  # holds unpacked archives and decoded images
    image_cache_gb: float = key("${paths.image_cache_gb}", at_least=0)
    horizontal_flip: bool = True  # may a mirrored image keep its label?


def check(dataset: DictConfig) -> None:
    """Raises `UserError` for mistakes that the limits of single keys do not catch; sets `name` if it is null."""
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
    check_root_is_there(dataset)


def check_folds(num_folds: int | None, fold: int) -> None:
    """Raises `UserError` for a fold that does not exist."""
    if num_folds is None and fold:
        raise UserError(f"dataset.fold={fold} is not allowed without dataset.num_folds, how many folds there are")
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
    texts=("name", "prompt_template"),
)
