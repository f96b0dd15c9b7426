"""Every encoder gives unit features with exact gradients, stays frozen, and guides an expansion."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from conftest import compose
from encoder_models import PROCESSOR, SIZE, as_tensor, encoder_of, normalised, save_classifier, saved_models, source_of
from PIL import Image
from torch import nn
from torch.nn import functional as F
from transformers import PreTrainedModel

from distdiff.caching.stages import StageCache
from distdiff.classification.training import few_shot_training_set
from distdiff.data.datasets import load_dataset
from distdiff.encoders.base import Encoder
from distdiff.encoders.vision import TransformersSource
from distdiff.energy.images import ImageEnergy
from distdiff.expansion.assembly import Assembly
from distdiff.expansion.job import ExpansionJob
from distdiff.guidance.transform_official import TransformOfficial


@pytest.fixture(scope="session")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Path, PreTrainedModel]]:
    return saved_models(tmp_path_factory)


@pytest.fixture
def classifier_files(tmp_path: Path) -> tuple[nn.Module, list[Path]]:
    return save_classifier(tmp_path)


@pytest.fixture(params=["guide", "clip", "hf", "transformers classifier"])
def encoder(request: pytest.FixtureRequest, saved) -> Encoder:
    if request.param == "guide":
        path = request.getfixturevalue("classifier_files")[1][1]
        return encoder_of(f"encoder.checkpoint={path}")
    return {
        "clip": lambda: encoder_of("encoder=clip", f"encoder.model={saved('clip')[0]}"),
        "hf": lambda: encoder_of("encoder=hf", f"encoder.model={saved('dinov2')[0]}"),
        "transformers classifier": lambda: encoder_of(f"encoder.checkpoint={saved('vit_classifier')[0]}"),
    }[request.param]()


def test_every_encoder_gives_unit_features_whose_gradient_is_the_finite_difference(encoder: Encoder) -> None:
    for dtype in (torch.float32, torch.float64):
        encoder = encoder.to(dtype)
        images = torch.rand(2, 3, 40, 44, dtype=dtype, requires_grad=True)
        features = encoder(images)
        assert features.shape == (2, encoder.feature_dim)
        torch.testing.assert_close(features.norm(dim=1), torch.ones(2, dtype=dtype))
    towards = torch.randn_like(features)
    (gradient,) = torch.autograd.grad((features * towards).sum(), images)
    direction, step = F.normalize(torch.randn_like(images), dim=(1, 2, 3)), 1e-6
    with torch.no_grad():
        ends = [(encoder(images + sign * step * direction) * towards).sum() for sign in (1, -1)]
    assert gradient.abs().sum() > 0
    torch.testing.assert_close((gradient * direction).sum(), (ends[0] - ends[1]) / (2 * step), rtol=1e-5, atol=1e-9)


def test_every_encoder_is_frozen_and_stays_in_evaluation_mode(encoder: Encoder) -> None:
    images = torch.rand(4, 3, 32, 32)
    before = encoder(images)
    weights = {name: tensor.clone() for name, tensor in encoder.state_dict().items()}
    nn.ModuleList([encoder]).train()
    torch.testing.assert_close(encoder(images), before, rtol=0, atol=0)
    assert not before.requires_grad
    assert all(not module.training for module in encoder.modules())
    assert all(torch.equal(tensor, weights[name]) for name, tensor in encoder.state_dict().items())


def test_the_published_transform_sees_a_plain_resize_of_the_decoders_range(encoder: Encoder, monkeypatch) -> None:
    images, extract, seen = torch.rand(2, 3, 64, 64), encoder.extract, []
    monkeypatch.setattr(encoder, "extract", lambda inputs: seen.append(inputs) or extract(inputs))

    class Features(nn.Module):
        """An energy that gives back what it is shown."""

        dtype = torch.float32

        def forward(self, features: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
            return features

    batch = SimpleNamespace(
        denoiser=SimpleNamespace(decode=lambda clean: clean),
        image_energy=ImageEnergy(encoder, Features()),
        targets=None,
    )
    method = TransformOfficial(rho=10.0, epsilon=0.2, init="random")
    features = method.energy_of_clean(images, batch)
    size = (encoder.input_size,) * 2
    decoded = images * 2 - 1
    torch.testing.assert_close(seen[0], F.interpolate(decoded, size=size, mode="bicubic", antialias=False))
    torch.testing.assert_close(features, extract(seen[0]))
    assert not torch.allclose(features.norm(dim=1), torch.ones(2))


def test_a_fingerprint_follows_content_and_nothing_else(saved, classifier_files, tmp_path: Path, monkeypatch) -> None:
    def identity(*overrides: str) -> str:
        return source_of(*overrides).identity(data=None, seed=0)

    folder, file = saved("clip")[0], classifier_files[1][1]
    copy = shutil.copytree(folder, tmp_path / "copy")
    base = identity("encoder=hf", f"encoder.model={folder}")
    assert identity("encoder=hf", f"encoder.model={copy}", "seed=3") == base
    assert identity("encoder=clip", f"encoder.model={copy}") != base
    (copy / "preprocessor_config.json").write_text(json.dumps(PROCESSOR | {"resample": 2}))
    assert identity("encoder=hf", f"encoder.model={copy}") != base
    of_file = identity(f"encoder.checkpoint={file}")
    assert identity(f"encoder.checkpoint={shutil.copy(file, tmp_path / 'moved.safetensors')}") == of_file
    assert identity(f"encoder.checkpoint={file}", "encoder.guide.input_size=64") != of_file
    unread = ["encoder.guide.steps=3", "encoder.guide.augmentation=none"]
    assert identity(f"encoder.checkpoint={file}", *unread) == of_file
    monkeypatch.setattr(TransformersSource, "commit", lambda source: None)  # as if the hub had been asked
    assert identity("encoder=hf", "encoder.model=a/b") != identity(
        "encoder=hf", "encoder.model=a/b", "encoder.revision=x"
    )


@pytest.fixture
def expansion(small_run: list[str], image_folder: Path, tmp_path: Path) -> Callable[..., tuple[Assembly, ExpansionJob]]:
    def make(*overrides: str) -> tuple[Assembly, ExpansionJob]:
        given = [*small_run, "dataset=imagefolder", f"dataset.root={image_folder}", "expansion.factor=1"]
        if any(item.startswith("encoder=") for item in overrides):  # which has no such keys
            given = [item for item in given if not item.startswith("encoder.guide.")]
        config = compose("expand", [*given, *overrides])
        cache = StageCache(config.paths.cache_dir)
        data = few_shot_training_set(config, load_dataset(config.dataset).train, config.seed)
        expander = Assembly(config, cache)
        job = expander.job(data, config.seed)
        job.claim()
        return expander, job

    return make


@pytest.mark.parametrize("method", ["direct", "transform_official"])
def test_an_expansion_runs_with_any_encoder_and_trains_no_guide_then(
    expansion, saved, classifier_files, tmp_path: Path, method: str
) -> None:
    paths = set()
    for encoder in (
        ["encoder=hf", f"encoder.model={saved('dinov2')[0]}"],
        ["encoder=clip", f"encoder.model={saved('clip')[0]}"],
        ["encoder=guide", f"encoder.checkpoint={classifier_files[1][2]}"],
    ):
        _, job = expansion(f"guidance={method}", *encoder)
        job.run("test")
        paths.add(job.path)
        assert len(list(job.path.rglob("*.png"))) == len(job.sources)
    assert len(paths) == 3
    assert not (tmp_path / "outputs" / "cache" / "classifiers").exists()


def test_prototypes_are_means_of_the_plain_models_features_of_images_in_the_samplers_size(
    expansion, saved, tmp_path: Path
) -> None:
    folder, model = saved("dinov2")
    expander, job = expansion("encoder=hf", f"encoder.model={folder}", "generator.resolution=64", "dataset.fit=squash")
    config, train = expander.config, job.sources
    data = few_shot_training_set(config, load_dataset(config.dataset).train, config.seed)
    materials = expander.materials(data, config.seed, "test")
    prototypes = materials.prototypes(materials.encoder(), 64, data.fit)
    features = []
    for position in range(len(train)):
        shown = train.image(position).resize((64, 64), Image.Resampling.LANCZOS)
        pixels = F.interpolate(as_tensor(shown), size=(SIZE, SIZE), mode="bicubic", antialias=True)
        with torch.no_grad():
            features.append(model(pixel_values=normalised(pixels).float()).pooler_output)
    features = F.normalize(torch.cat(features), dim=-1)
    for label in range(2):
        expected = F.normalize(features[torch.from_numpy(train.labels == label)].mean(0), dim=0)
        torch.testing.assert_close(prototypes.classes[label], expected)
