"""Loads a dataset's splits from its configuration, and makes its prompts."""

from collections.abc import Sequence
from dataclasses import replace

from omegaconf import DictConfig

from distdiff.data.examining import find_range_in
from distdiff.data.images import DatasetSplits, joined
from distdiff.data.leaks import without_leaks
from distdiff.data.overlaps import EVALUATED_IN
from distdiff.data.prompts import class_sentences, class_words, filled
from distdiff.data.reading.options import ReadingOptions
from distdiff.data.splits.carving import TEST, TRAIN, VALIDATION
from distdiff.data.splits.folds import fold_as_validation
from distdiff.data.splits.subset import reduced
from distdiff.keys import build


def load_dataset(config: DictConfig) -> DatasetSplits:
    """Calls the loader `config._target_` with the dataset's keys, and keeps the requested part of the training images.

    If `num_folds` is set, the training images are split into folds, and the fold with the index `fold` replaces the
    validation images. If `drop_leaks` is true, images that are in several splits are left out (see `without_leaks`).
    """
    if config.num_folds is None:
        return _reduced(config, _loaded(config))
    splits = _reduced(config, _loaded(config, validation_fraction=0), between=((TEST, TRAIN),))
    splits = fold_as_validation(splits, config.num_folds, config.fold, config.split_seed)
    return without_leaks(splits, between=((VALIDATION, TRAIN),)) if config.drop_leaks else splits


def load_without_carving(config: DictConfig) -> DatasetSplits:
    """Loads a dataset for a use that measures no accuracy: images carved for validation or testing stay training images.

    The validation and test images are those of the dataset's own splits; without such a split, they are an empty part.
    `indices`, `fraction` and `max_images` choose among all training images, of which the carved ones are the last.
    """
    splits = _loaded(config)
    carved = {part: getattr(splits, part).shares_source(splits.train) for part in ("validation", "test")}
    images = joined([splits.train, *(getattr(splits, part) for part, is_carved in carved.items() if is_carved)])
    own = {part: getattr(splits, part).select([]) for part, is_carved in carved.items() if is_carved}
    return _reduced(config, replace(splits, train=images, **own))


def _loaded(config: DictConfig, **more: object) -> DatasetSplits:
    """All splits as the dataset's loader gives them."""
    splits = _read_as(ReadingOptions.of(config), build(config, **more))
    find_range_in(splits.train)  # before a part is chosen, so that all parts and folds have the same range
    return splits


def _reduced(
    config: DictConfig, splits: DatasetSplits, between: Sequence[tuple[str, str]] = EVALUATED_IN
) -> DatasetSplits:
    """Keeps the requested part of the training images.

    If `drop_leaks` is true, the leaks between the pairs of splits in `between` are left out first, except that `indices`
    counts all training images.
    """
    if not config.drop_leaks:
        return replace(splits, train=reduced(splits.train, config.indices, config.fraction, config.max_images))
    splits = without_leaks(replace(splits, train=reduced(splits.train, config.indices)), between)
    return replace(splits, train=reduced(splits.train, None, config.fraction, config.max_images))


def _read_as(options: ReadingOptions, splits: DatasetSplits) -> DatasetSplits:
    parts = {part: replace(getattr(splits, part), options=options) for part in (TRAIN, VALIDATION, TEST)}
    return replace(splits, **parts)


def prompts(config: DictConfig, class_names: tuple[str, ...]) -> list[str]:
    """One prompt per class: `prompt_template` with the class's words in place of `{}`.

    A class without words in the key `config.class_names` is called by its own name, with spaces in place of `_`. In the
    default template, the article is an before a vowel.
    """
    words = class_words(class_names, config.class_names)
    return [filled(config.prompt_template, word) for word in words]


def sentences(config: DictConfig, class_names: tuple[str, ...]) -> list[list[str]]:
    """The prompts of each class. If `prompts_file` is set, the prompts of a class are its sentences in this file.

    If `prompts_file` is null, each class has one prompt (see `prompts`).
    """
    if config.prompts_file is None:
        return [[prompt] for prompt in prompts(config, class_names)]
    return class_sentences(config.prompts_file, class_names, class_words(class_names, config.class_names))
