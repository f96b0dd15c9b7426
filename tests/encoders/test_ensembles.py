"""A guide of several classifiers: its features, its probabilities, and that each member is trained once."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import compose
from encoder_models import source_of
from scipy.special import log_softmax, logsumexp
from torch.nn import functional as F

from distdiff.caching.stages import StageCache
from distdiff.classification.ensemble import Ensemble
from distdiff.classification.networks import ImageClassifier, small_cnn
from distdiff.classification.training import ClassifierTrainer, TrainingSet, few_shot_training_set
from distdiff.data.datasets import load_dataset
from distdiff.encoders.guide import GuideEncoder, guide_in_cache
from distdiff.errors import UserError
from distdiff.expansion.first_round import first_round_config
from distdiff.guidance.classifying import log_probabilities
from distdiff.seeds import training_seed


def classifiers(number: int, classes: int = 4) -> list[ImageClassifier]:
    found = []
    for seed in range(number):
        torch.manual_seed(seed)
        found.append(small_cnn(classes, input_size=16).eval().double())
    return found


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    return torch.rand(3, 3, 16, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def test_features_stand_side_by_side_and_probabilities_are_averaged(images: torch.Tensor) -> None:
    """Oracle: scipy's log-softmax of each member's logits, and the logarithm of their mean."""
    members = classifiers(3)
    φ = GuideEncoder(Ensemble(members)).double()
    raw = φ.features(images)
    assert torch.equal(raw, torch.cat([member.features(images) for member in members], dim=1))
    assert raw.shape == (3, φ.feature_dim)
    logs = [log_softmax(member(images).detach().numpy(), axis=1) for member in members]
    expected = logsumexp(logs, axis=0) - np.log(3)
    found = log_probabilities(raw, φ, SimpleNamespace(num_classes=4))  # as feedback guidance asks for them
    assert np.allclose(found.detach(), expected, atol=1e-12)
    assert np.allclose(φ.classifier(images).detach(), expected, atol=1e-12)


def test_the_gradient_passes_through_every_member(images: torch.Tensor) -> None:
    """Oracle: central differences in float64."""
    φ = GuideEncoder(Ensemble(classifiers(2))).double()
    target = F.normalize(torch.randn(1, φ.feature_dim, dtype=torch.float64), dim=1)
    pixels = images[:1].clone().requires_grad_()
    (gradient,) = torch.autograd.grad((φ(pixels) * target).sum(), pixels)
    step = 1e-6
    for place in [(0, 0, 3, 5), (0, 1, 8, 8), (0, 2, 12, 1)]:
        moved = torch.zeros_like(pixels)
        moved[place] = step
        with torch.no_grad():
            slope = ((φ(pixels + moved) - φ(pixels - moved)) * target).sum() / (2 * step)
        assert gradient[place].item() == pytest.approx(slope.item(), rel=1e-4, abs=1e-9)


@pytest.fixture(scope="module")
def few() -> TrainingSet:
    config = compose("expand", [])
    return few_shot_training_set(config, load_dataset(config.dataset).train, seed=0)


def ensemble(folder: Path, *more: str) -> Sequence[str]:
    return ["encoder.guide.steps=2", f"paths.cache_dir={folder}", *more]


def test_the_first_member_is_the_guide_alone_and_the_others_differ(few, tmp_path, monkeypatch) -> None:
    alone, three = source_of(*ensemble(tmp_path)), source_of(*ensemble(tmp_path, "encoder.guide.members=3"))
    assert alone.identity(few, 0) != three.identity(few, 0) != three.identity(few, 1)
    guide = alone.encoder(few, 0, "guide")
    assert not three.is_ready(few, 0)
    φ = three.encoder(few, 0, "guide")
    assert three.is_ready(few, 0)
    backbones = [backbone.state_dict() for backbone in φ.classifier.backbone.backbones]
    own = guide.classifier.backbone.state_dict()
    same = [all(torch.equal(value, own[name]) for name, value in backbone.items()) for backbone in backbones]
    assert same == [True, False, False]
    assert not torch.equal(backbones[1]["0.weight"], backbones[2]["0.weight"])
    assert three.trained(few, 0)[0] == alone.identity(few, 0)
    seeds = [0, *(training_seed(0, number) for number in (1, 2))]  # a study's trainings of this recipe
    orders = [three.classifiers.learning_order(few, seed, "guide") for seed in seeds]
    assert np.array_equal(orders[0], alone.learning_order(few, 0, "guide"))
    assert not np.array_equal(orders[0], np.mean(orders, axis=0))
    assert np.allclose(three.learning_order(few, 0, "guide"), np.mean(orders, axis=0))

    def refuse(*_: object) -> None:
        raise AssertionError("trained again")

    monkeypatch.setattr(ClassifierTrainer, "_fit", refuse)
    again = source_of(*ensemble(tmp_path, "encoder.guide.members=3")).encoder(few, 0, "guide")
    found = guide_in_cache(three.identity(few, 0), StageCache(tmp_path))
    pixels = torch.rand(2, 3, 32, 32)
    assert torch.equal(again(pixels), φ(pixels))
    assert torch.equal(found(pixels), φ(pixels))


def test_an_ensemble_that_lacks_a_member_is_not_found(few, tmp_path: Path) -> None:
    source = source_of(*ensemble(tmp_path, "encoder.guide.members=2"))
    source.encoder(few, 0, "guide")
    shutil.rmtree(next(path for path in (tmp_path / "classifiers").iterdir() if path.is_dir()))
    assert guide_in_cache(source.identity(few, 0), StageCache(tmp_path)) is None


def test_a_guide_that_is_not_trained_has_no_members(tmp_path: Path) -> None:
    (tmp_path / "weights.safetensors").touch()
    keys = [f"encoder.checkpoint={tmp_path}/weights.safetensors", "encoder.guide.members=2"]
    with pytest.raises(UserError, match=r"encoder.guide.members=2 is not allowed with encoder.checkpoint"):
        compose("expand", keys)


def test_the_images_from_which_members_learn_are_the_same_for_any_number_of_them() -> None:
    rounds = [
        first_round_config(compose("expand", ["encoder.guide.copies=2", f"encoder.guide.members={n}"])) for n in (1, 3)
    ]
    assert rounds[0].encoder.guide.members == rounds[1].encoder.guide.members == 1
    assert rounds[0] == rounds[1]
