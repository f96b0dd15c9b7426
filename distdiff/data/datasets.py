"""Loads a dataset's splits from its configuration, and makes its prompts."""

from dataclasses import replace

from omegaconf import DictConfig

from distdiff.data.examining import find_range_in
from distdiff.data.images import DatasetSplits
from distdiff.data.prompts import class_sentences, class_words
from distdiff.data.reading.options import ReadingOptions
from distdiff.data.splits.folds import fold_as_validation
from distdiff.data.splits.subset import reduced
from distdiff.keys import build


def load_dataset(config: DictConfig) -> DatasetSplits:
    """Calls the loader `config._target_` with the dataset's keys, and keeps the requested part of the training images.

    If `num_folds` is set, the training images are split into folds, and the fold with the index `fold` replaces the
    validation images.
    """
    splits = build(config) if config.num_folds is None else build(config, validation_fraction=0)
    splits = _read_as(ReadingOptions.of(config), splits)
    find_range_in(splits.train)  # before a part is chosen, so that all parts and folds have the same range
    splits = replace(splits, train=reduced(splits.train, config.indices, config.fraction, config.max_images))
    if config.num_folds is None:
        return splits
    return fold_as_validation(splits, config.num_folds, config.fold, config.split_seed)


def _read_as(options: ReadingOptions, splits: DatasetSplits) -> DatasetSplits:
    parts = {part: replace(images, options=options) for part, images in vars(splits).items()}
    return replace(splits, **parts)


def prompts(config: DictConfig, class_names: tuple[str, ...]) -> list[str]:
    """One prompt per class: `prompt_template` with the class's words in place of `{}`.

    A class without words in the key `config.class_names` is called by its own name, with spaces in place of `_`.
    """
    return [config.prompt_template.replace("{}", word) for word in class_words(class_names, config.class_names)]


def sentences(config: DictConfig, class_names: tuple[str, ...]) -> list[list[str]]:
    """The prompts of each class. If `prompts_file` is set, the prompts of a class are its sentences in this file.

    If `prompts_file` is null, each class has one prompt (see `prompts`).
    """
    if config.prompts_file is None:
        return [[prompt] for prompt in prompts(config, class_names)]
    return class_sentences(config.prompts_file, class_names, class_words(class_names, config.class_names))
