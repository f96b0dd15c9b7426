"""The maths of guidance, against finite differences, closed forms and an independent transcription."""

import pytest
import torch
from conftest import small_pipeline
from torch import nn
from torch.nn import functional as F

from distdiff.classification.networks import ImageClassifier
from distdiff.encoders.guide import GuideEncoder
from distdiff.generator.latent_diffusion import LatentDiffusion
from distdiff.guidance.base import clean_energy
from distdiff.guidance.direct import Direct
from distdiff.guidance.energy import HierarchicalEnergy
from distdiff.guidance.none import Unguided
from distdiff.guidance.transform import Transform
from distdiff.guidance.transform_official import TransformOfficial
from distdiff.prototypes.hierarchical import Prototypes

STEPS, STRENGTH, START = 8, 0.75, 4
CLASSES, GROUPS = 3, 2


def smooth_classifier() -> ImageClassifier:
    """Smooth everywhere, so that finite differences are exact to second order (ReLU and max pooling have kinks)."""
    backbone = nn.Sequential(
        nn.Conv2d(3, 8, 5, stride=2), nn.Tanh(), nn.Conv2d(8, 16, 5, stride=2), nn.Tanh(), nn.Flatten()
    )
    return ImageClassifier(backbone, 400, CLASSES, input_size=32, mean=0.5, std=0.5)


class Bench:
    """A random pipeline, guide and prototypes in float64, and a batch of latents at the first guided step."""

    def __init__(self, batch: int = 3) -> None:
        torch.manual_seed(0)
        self.generator = LatentDiffusion(small_pipeline().to(torch.float64), num_steps=STEPS, cfg_scale=2.0)
        self.encoder = GuideEncoder(smooth_classifier()).double()
        dim = self.encoder.classifier.feature_dim
        groups = F.normalize(torch.randn(CLASSES, GROUPS, dim, dtype=torch.float64), dim=-1)
        present = torch.tensor([[True, True], [True, False], [True, True]])
        self.prototypes = Prototypes(F.normalize(groups.mean(1), dim=-1), groups, present)
        self.energy = HierarchicalEnergy(self.encoder, self.prototypes, class_weight=0.7, group_weight=1.3)
        self.labels = torch.arange(batch) % CLASSES
        self.latents = torch.randn(batch, 4, 8, 8, dtype=torch.float64)
        self.embeddings = self.generator.embed(["a", "b", "c"])
        self.negative = self.generator.embed([""])
        self.index = STEPS - START

    def denoiser(self, members: slice = slice(None)):
        return self.generator.denoiser(self.embeddings[self.labels[members]], self.negative)

    def step(self, method, members: slice = slice(None)) -> tuple[torch.Tensor, torch.Tensor]:
        schedule = method.schedule(STEPS, STRENGTH)
        generators = [torch.Generator().manual_seed(100 + i) for i in range(len(self.labels))][members]
        return method.step(
            self.latents[members],
            self.index,
            self.denoiser(members),
            self.energy,
            self.labels[members],
            schedule,
            generators,
        )


@pytest.fixture(scope="module")
def bench() -> Bench:
    return Bench()


METHODS = {
    "none": lambda **k: Unguided(start_step=START, **k),
    "direct": lambda **k: Direct(start_step=START, **{"rho": 2.0, **k}),
    "transform": lambda **k: Transform(start_step=START, period=2, **{"init": "identity", **k}),
    "transform_random": lambda **k: Transform(start_step=START, period=2, init="random", **k),
    "transform_official": lambda **k: TransformOfficial(start_step=START, period=2, **k),
}


def test_energy_is_the_sum_of_weighted_distances(bench: Bench) -> None:
    features = F.normalize(torch.randn(3, bench.encoder.classifier.feature_dim, dtype=torch.float64), dim=-1)
    energies = bench.energy.of_features(features, bench.labels)
    for i, label in enumerate(bench.labels):
        present = [g for g in range(GROUPS) if bench.prototypes.present[label, g]]
        nearest = max(present, key=lambda g: float(features[i] @ bench.prototypes.groups[label, g]))
        expected = 0.7 * (features[i] - bench.prototypes.classes[label]).norm()
        expected += 1.3 * (features[i] - bench.prototypes.groups[label, nearest]).norm()
        assert energies[i].item() == pytest.approx(expected.item(), abs=1e-12)


def test_energy_at_a_prototype_is_zero_with_a_finite_gradient(bench: Bench) -> None:
    features = bench.prototypes.classes[:1].clone().requires_grad_()
    energy = HierarchicalEnergy(bench.encoder, bench.prototypes, class_weight=1.0, group_weight=0.0)
    value = energy.of_features(features, torch.tensor([0]))
    value.sum().backward()
    assert value.item() == 0
    assert torch.isfinite(features.grad).all()


def directional(function, at: torch.Tensor, direction: torch.Tensor, h: float = 1e-5) -> torch.Tensor:
    """Central difference of `function` (B values) at `at` along `direction`."""
    return (function(at + h * direction) - function(at - h * direction)) / (2 * h)


def test_direct_moves_by_rho_times_the_energys_gradient(bench: Bench) -> None:
    """Oracle: finite differences of the energy along random directions."""
    rho = 2.0
    guided, _ = bench.step(METHODS["direct"](rho=rho))
    plain, _ = bench.step(METHODS["none"]())
    gradient = (plain - guided) / rho

    def energies(latents: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            return clean_energy(latents, bench.index, bench.denoiser(), bench.energy, bench.labels)[1]

    for seed in range(3):
        direction = torch.randn(bench.latents.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        expected = directional(energies, bench.latents, direction)
        torch.testing.assert_close((gradient * direction).sum((1, 2, 3)), expected, rtol=1e-6, atol=1e-10)


def test_transform_takes_one_gradient_step_in_scale_and_shift(bench: Bench) -> None:
    """Oracle: finite differences of the rollout's energy in every entry of ω and b."""
    method = METHODS["transform"](rho=0.5, epsilon=1e9)
    zeros = torch.zeros(3, 4, 1, 1, dtype=torch.float64)

    def energies(scale: torch.Tensor, shift: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            moved = bench.latents * (1 + scale) + shift
            return method.rollout_energy(moved, bench.index, 2, bench.denoiser(), bench.energy, bench.labels)

    gradients = []
    for which in range(2):
        columns = []
        for channel in range(4):
            direction = zeros.clone()
            direction[:, channel] = 1
            at = [zeros, zeros]

            def along(value: torch.Tensor, which: int = which, at: list = at) -> torch.Tensor:
                return energies(*(value if i == which else part for i, part in enumerate(at)))

            columns.append(directional(along, zeros, direction))
        gradients.append(torch.stack(columns, 1)[..., None, None])
    expected = bench.latents * (1 - 0.5 * gradients[0]) - 0.5 * gradients[1]
    moved = method.transformed(
        bench.latents, zeros, zeros, bench.index, 2, bench.denoiser(), bench.energy, bench.labels
    )
    torch.testing.assert_close(moved - bench.latents, expected - bench.latents, rtol=1e-6, atol=1e-10)


def test_transform_stays_in_the_ball(bench: Bench) -> None:
    method = METHODS["transform_random"](rho=10.0, epsilon=0.2)
    generators = [torch.Generator().manual_seed(i) for i in range(3)]
    scale, shift = method.initial(bench.latents, generators)
    moved = method.transformed(
        bench.latents, scale, shift, bench.index, 2, bench.denoiser(), bench.energy, bench.labels
    )
    distance = (moved - bench.latents).abs().max().item()
    assert distance == pytest.approx(0.2, abs=1e-12)


def test_official_is_the_published_update(bench: Bench) -> None:
    """Oracle: the published update written out again, tensor by tensor, with its mean over the whole batch."""
    method = METHODS["transform_official"](rho=10.0, epsilon=0.2)
    method.batch_mean_over = len(bench.labels)
    generators = [torch.Generator().manual_seed(100 + i) for i in range(3)]
    omega = torch.stack([torch.rand((4, 1, 1), generator=g) for g in generators]).double().requires_grad_()
    beta = torch.stack([torch.randn((4, 1, 1), generator=g) for g in generators]).double().requires_grad_()
    ddim = bench.denoiser().scheduler
    classifier, vae = bench.encoder.classifier, bench.generator.vae
    text = torch.cat([bench.negative.expand(3, -1, -1), bench.embeddings[bench.labels]])

    z, score = bench.latents * (1 + omega) + beta, 0.0
    for t in ddim.timesteps[bench.index : bench.index + 2]:
        free, conditioned = bench.generator.unet(torch.cat([z, z]), t, text).sample.chunk(2)
        result = ddim.step(free + 2.0 * (conditioned - free), t, z)
        z = result.prev_sample
        picture = vae.decode(result.pred_original_sample / vae.config.scaling_factor).sample
        raw = classifier.backbone(F.interpolate(picture, (32, 32), mode="bicubic"))
        score = score + 0.7 * (raw - bench.prototypes.classes[bench.labels]).norm(dim=1).mean()
        similarity = torch.einsum("bd,bkd->bk", raw, bench.prototypes.groups[bench.labels])
        similarity[~bench.prototypes.present[bench.labels]] = -torch.inf
        nearest = bench.prototypes.groups[bench.labels, similarity.argmax(1)]
        score = score + 1.3 * (raw - nearest).norm(dim=1).mean()
    slopes = torch.autograd.grad(score / 2, (omega, beta))
    with torch.no_grad():
        published = bench.latents * (1 + omega - 10 * slopes[0]) + beta - 10 * slopes[1]
        published = bench.latents + (published - bench.latents).clamp(-0.2, 0.2)

    generators = [torch.Generator().manual_seed(100 + i) for i in range(3)]
    scale, shift = method.initial(bench.latents, generators)
    ours = method.transformed(bench.latents, scale, shift, bench.index, 2, bench.denoiser(), bench.energy, bench.labels)
    torch.testing.assert_close(ours, published, atol=1e-5, rtol=0)


def test_official_starts_where_the_published_code_does() -> None:
    for num_steps, strength in [(50, 0.5), (50, 0.7), (30, 0.33)]:
        assert TransformOfficial().schedule(num_steps, strength).first == int((1 - strength) * num_steps)


@pytest.mark.parametrize(
    ("name", "off"),
    [
        ("direct", {"rho": 0.0}),
        ("transform", {"rho": 0.0}),
        ("transform", {"epsilon": 0.0}),
        ("transform_random", {"epsilon": 0.0}),
        ("transform_official", {"epsilon": 0.0}),
    ],
)
def test_guidance_that_is_off_is_no_guidance(bench: Bench, name: str, off: dict[str, float]) -> None:
    guided, energy = bench.step(METHODS[name](**off))
    plain, expected_energy = bench.step(METHODS["none"]())
    torch.testing.assert_close(guided, plain, atol=1e-12, rtol=0)
    torch.testing.assert_close(energy, expected_energy, atol=1e-12, rtol=0)


@pytest.mark.parametrize("name", METHODS)
def test_a_batch_of_eight_is_eight_batches_of_one(name: str) -> None:
    bench = Bench(batch=8)
    together, energies = bench.step(METHODS[name]())
    for i in range(8):
        alone, energy = bench.step(METHODS[name](), slice(i, i + 1))
        torch.testing.assert_close(together[i : i + 1], alone, atol=1e-8, rtol=0)
        torch.testing.assert_close(energies[i : i + 1], energy, atol=1e-8, rtol=0)


@pytest.mark.parametrize("name", ["direct", "transform"])
def test_a_small_step_lowers_every_samples_energy(bench: Bench, name: str) -> None:
    """Descent in z_t itself for direct; in (ω, b) before the clamp for transform."""
    method = METHODS[name](rho=1e-3, epsilon=1e9)
    if name == "direct":
        plain, before = bench.step(METHODS["none"]())
        guided, _ = bench.step(method)
        moved = bench.latents + (guided - plain)
        with torch.no_grad():
            _, after = clean_energy(moved, bench.index, bench.denoiser(), bench.energy, bench.labels)
    else:
        zeros = torch.zeros(3, 4, 1, 1, dtype=torch.float64)
        arguments = (bench.index, 2, bench.denoiser(), bench.energy, bench.labels)
        moved = method.transformed(bench.latents, zeros, zeros, *arguments)
        with torch.no_grad():
            before = method.rollout_energy(bench.latents, *arguments)
            after = method.rollout_energy(moved, *arguments)
    assert (after < before).all()
