"""How often real and synthetic images are drawn: the four mixings, the order of the draws, and what an epoch is."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import compose
from PIL import Image
from scipy.stats import chisquare
from stored import FACTOR, SOURCES, standin_jobs
from torch.utils.data import RandomSampler, WeightedRandomSampler

from distdiff.caching.stages import StageCache
from distdiff.classification.data import ClassificationData, ImageTensors
from distdiff.classification.recipe import Recipe
from distdiff.classification.sampling import expected_shares, image_sampler
from distdiff.classification.training import ClassifierTrainer, TrainingSet
from distdiff.data.images import LabelledImages
from distdiff.data.soft_labels import SoftLabels
from distdiff.errors import UserError
from distdiff.store.reading import read_expanded

REAL, COPIES, COUNT = 10, 3, 20_000


def shades(labels: list[int], sources: list[tuple[str, ...]] | None = None, name: str = "shades") -> LabelledImages:
    """One image of a single colour for each label."""
    keys = tuple(f"{number}.png" for number in range(len(labels)))
    return LabelledImages(
        name,
        ("dark", "bright"),
        np.array(labels),
        keys,
        read=lambda index: Image.new("RGB", (8, 8), (20 + index, 100, 30 * labels[index])),
        indices=np.arange(len(labels)),
        sources=None if sources is None else tuple(sources),
    )


def real_and_copies() -> list[LabelledImages]:
    """Ten real images of two classes, with three copies each; the copies of image i are 10 + 3 i to 12 + 3 i."""
    labels = [0] * 7 + [1] * 3
    names = ("dark", "bright")
    sources = [(f"{names[label]}/{number}.png",) for number, label in enumerate(labels) for _ in range(COPIES)]
    return [shades(labels), shades([label for label in labels for _ in range(COPIES)], sources)]


MIXINGS = [("probability", 0.3), ("probability", 0.7), ("concatenate", None), ("weighted", None), ("replace", 0.4)]


@pytest.mark.parametrize(("mixing", "probability"), MIXINGS)
def test_every_image_is_drawn_as_often_as_its_share_says(mixing: str, probability: float | None) -> None:
    parts = real_and_copies()
    drawn = np.bincount(list(image_sampler(parts, COUNT, 0, mixing, probability)), minlength=REAL * (1 + COPIES))
    shares = expected_shares(parts, mixing, probability)
    assert chisquare(drawn, shares * COUNT).pvalue > 1e-3
    synthetic = {"probability": probability, "replace": probability}.get(mixing, COPIES / (1 + COPIES))
    bound = 4 * np.sqrt(synthetic * (1 - synthetic) / COUNT)
    assert bound < 0.015  # a share that is wrong by 0.03 is outside
    assert drawn[REAL:].sum() / COUNT == pytest.approx(synthetic, abs=bound)
    assert shares[REAL:].sum() == pytest.approx(synthetic)


def test_the_order_of_draws_is_the_one_that_it_was() -> None:
    parts, seeded = real_and_copies(), lambda: torch.Generator().manual_seed(5)
    weights = torch.tensor([0.3 / 10] * 10 + [0.7 / 30] * 30)
    assert list(image_sampler(parts, 100, 5, "probability", 0.7)) == list(
        WeightedRandomSampler(weights, 100, generator=seeded())
    )
    for mixing in ("concatenate", "weighted"):
        assert list(image_sampler(parts, 100, 5, mixing, None)) == list(
            RandomSampler(range(40), num_samples=100, generator=seeded())
        )
    for mixing, share in MIXINGS:  # there is nothing to mix
        assert list(image_sampler(parts[:1], 100, 5, mixing, share)) == list(
            RandomSampler(range(10), num_samples=100, generator=seeded())
        )


def test_a_real_image_is_replaced_by_a_copy_of_its_own() -> None:
    parts = real_and_copies()
    originals = list(RandomSampler(range(REAL), num_samples=500, generator=torch.Generator().manual_seed(2)))
    for share in (0.0, 0.5, 1.0):
        drawn = list(image_sampler(parts, 500, 2, "replace", share))
        made_from = [number if number < REAL else (number - REAL) // COPIES for number in drawn]
        assert made_from == originals
        assert {0.0: {True}, 0.5: {True, False}, 1.0: {False}}[share] == {number < REAL for number in drawn}


def test_without_copies_of_its_own_an_image_of_its_class_stands_in_and_else_it_stays() -> None:
    only_dark = shades([0, 0], [("dark/0.png",), ("dark/0.png", "dark/1.png")])
    parts = [shades([0, 0, 0, 1]), only_dark, replace(shades([0]), sources=None)]
    drawn: dict[int, set[int]] = {}
    originals = RandomSampler(range(4), num_samples=400, generator=torch.Generator().manual_seed(0))
    for original, number in zip(originals, image_sampler(parts, 400, 0, "replace", 1.0), strict=True):
        drawn.setdefault(original, set()).add(number)
    assert drawn == {0: {4, 5}, 1: {5}, 2: {4, 5, 6}, 3: {3}}


def test_an_expanded_dataset_says_what_its_images_were_made_from(tmp_path: Path) -> None:
    job, _ = standin_jobs(tmp_path)("expanded")
    job.run("test")
    images = read_expanded(job.path, job.sources)
    drawn = np.array(list(image_sampler([job.sources, images], 700, 0, "replace", 0.5)))
    assert (drawn >= SOURCES).mean() == pytest.approx(0.5, abs=0.08)
    assert len(set(drawn[drawn >= SOURCES])) == SOURCES * FACTOR
    originals = RandomSampler(range(SOURCES), num_samples=700, generator=torch.Generator().manual_seed(0))
    for original, number in zip(originals, drawn, strict=True):
        if number >= SOURCES:
            name = job.sources.class_names[job.sources.labels[original]]
            assert images.sources[number - SOURCES] == (f"{name}/{job.sources.keys[original]}",)
    assert images.select([3, 1]).sources == (images.sources[3], images.sources[1])


def test_a_batch_has_the_weights_of_its_synthetic_images() -> None:
    tensors = ImageTensors(real_and_copies(), 8, "squash", synthetic_weight=0.25)
    (images, _, weights), *others = ClassificationData(tensors, None, 2, 16, 0, "weighted").train_dataloader()
    assert len(others) == 1
    assert images.shape == (16, 3, 8, 8)
    drawn = list(image_sampler(tensors.parts, 32, 0, "weighted", None))[:16]
    assert weights.tolist() == [1.0 if number < REAL else 0.25 for number in drawn]


def trainer_of(tmp_path: Path, *overrides: str) -> ClassifierTrainer:
    config = compose("train", ["classifier.input_size=8", "augmentation=none", "logger=none", *overrides])
    return ClassifierTrainer(Recipe.of(config), config.trainer, StageCache(tmp_path))


def both(parts: list[LabelledImages]) -> TrainingSet:
    return TrainingSet(tuple(parts), ("real", "copies")[: len(parts)], "squash")


EPOCHS = {  # of 10 real and 30 synthetic images in batches of 7
    "train.mixing=concatenate": 6,
    "train.mixing=probability": 6,
    "train.mixing=replace": 2,  # each real image once
}


@pytest.mark.parametrize("mixing", EPOCHS)
def test_an_epoch_has_as_many_batches_as_its_images_fill(mixing: str, tmp_path: Path) -> None:
    trainer = trainer_of(tmp_path, "train.epochs=3", "train.batch_size=7", mixing)
    assert trainer.recipe_for(both(real_and_copies())).steps == 3 * EPOCHS[mixing]
    assert trainer.recipe_for(both(real_and_copies()[:1])).steps == 3 * 2


def test_epochs_and_as_many_steps_are_the_same_training(tmp_path: Path) -> None:
    data = both(real_and_copies())
    given = trainer_of(tmp_path, "train.epochs=3", "train.batch_size=7")
    same = trainer_of(tmp_path, "train.steps=18", "train.batch_size=7")
    assert given.fingerprint(data, 0) == same.fingerprint(data, 0)
    given.train(data, 0, "train")
    assert same.has(data, 0)


def test_more_steps_than_a_sampler_counts_are_one_line(tmp_path: Path) -> None:
    data = both([shades([0, 1] * 6000)])
    with pytest.raises(UserError, match=r"^train\.epochs=1000000 is not allowed: epochs of 12,000 images have 6,000,"):
        trainer_of(tmp_path, "train.epochs=1000000", "train.batch_size=2").fingerprint(data, 0)


@pytest.mark.parametrize("augmentation", ["none", "mixup", "cutmix"])
@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("mixing", ["train.mixing=weighted", "train.mixing=replace"])
def test_every_mixing_trains_with_soft_labels_class_weights_and_any_augmentation(
    mixing: str, soft: bool, augmentation: str, tmp_path: Path
) -> None:
    real, copies = real_and_copies()
    if soft:
        labels = SoftLabels.of([((int(label), 0.75), (1 - int(label), 0.25)) for label in copies.labels])
        copies = replace(copies, soft=labels)
    more = [f"augmentation={augmentation}", "train.steps=3", "train.class_weights=balanced", mixing]
    weight = ["train.synthetic_weight=0.5"] if mixing.endswith("weighted") else ["train.synthetic_probability=0.5"]
    trainer = trainer_of(tmp_path, *more, *weight, "train.label_smoothing=0.1", "optimizer=sgd")
    trained = trainer.train(both([real, copies]), 0, "train")
    assert all(weights.isfinite().all() for weights in trained.state_dict().values())
