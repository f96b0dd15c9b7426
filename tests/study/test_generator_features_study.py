"""The study of features of the generator: how it recognises classes, and what its page says."""

import csv
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import compose
from scipy import stats
from scripts import study_script
from torch.nn import functional as F


@pytest.fixture(scope="module")
def features():
    return study_script("generator_features")


def test_an_image_is_recognised_whose_nearest_prototype_is_that_of_its_class(features) -> None:
    rng = np.random.default_rng(0)
    classes, held_classes = np.array([2, 2, 5, 5, 5, 7]), rng.choice([2, 5, 7], 40)
    real, held = (F.normalize(torch.from_numpy(rng.normal(size=(n, 4))), dim=1) for n in (6, 40))
    hits = 0
    for feature, label in zip(held.numpy(), held_classes, strict=True):
        cosines = {}
        for known in (2, 5, 7):
            mean = np.mean([row for row, of in zip(real.numpy(), classes, strict=True) if of == known], axis=0)
            cosines[known] = feature @ mean / np.linalg.norm(mean)
        hits += max(cosines, key=cosines.get) == label
    assert 0 < hits < 40
    assert features.recognised(real, classes, held, held_classes) == pytest.approx(hits / 40)


def test_every_kind_of_features_composes(features) -> None:
    for keys in features.FEATURES.values():
        config = compose("run", [*keys, features.VALIDATION, "guidance=none", "dataset.per_class=2"])
        assert config.encoder.name in ("guide", "efficientnet_lite0", "generator")
    assert (config.encoder.noise_level, config.encoder.pool_size) == (0.7, 4)


def test_the_page_has_the_conditions_that_are_complete_and_pairs_draws(features, tmp_path: Path) -> None:
    table, best = tmp_path / "generator_features.csv", list(features.OWN)[-1]
    with open(table, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(features.COLUMNS)
        for place, name in enumerate(features.FEATURES):
            varies = (name == best) / 100  # up and down in turn, so the standard deviation is 0.01 · √(10 / 9)
            writer.writerows(
                ["digits", seed, name, 0.5 + place / 100 + (-1) ** seed * varies + seed / 1e5]
                for seed in features.SEEDS
            )
        writer.writerow(["ink", 1000, features.GUIDE, 0.5])
    page = features.page(table)
    assert "| the guide | 0.510 |" in page
    half = stats.t.ppf(1 - 0.05 / 6, df=9) * 0.01 / 3
    cells = f"+0.120 ± {half:.3f} | +0.110 ± {half:.3f} | +0.100 ± {half:.3f} |"
    assert f"| digits, 2 images a class | {best.removeprefix('generator, ')} | {cells}" in page
    assert "The 3 intervals" in page
    assert "blue ink" not in page
