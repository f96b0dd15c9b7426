"""Feedback guidance, against the published update on fixed tensors."""

import math

import pytest
import torch
from bench import METHODS, smooth_classifier
from rivals import RealBench, exemplars
from torch import nn
from torch.nn import functional as F

from distdiff.encoders.base import Encoder
from distdiff.guidance.classifying import entropy, log_probabilities


@pytest.fixture(scope="module")
def bench() -> RealBench:
    return RealBench()


class Headless(Encoder):
    """An encoder without a classifier's head."""

    def __init__(self, backbone: nn.Module, like: Encoder) -> None:
        super().__init__(backbone, like.preprocess, like.feature_dim)

    def extract(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.network(inputs)


@pytest.mark.parametrize("criterion", ["entropy", "loss"])
def test_a_step_is_the_published_one(bench: RealBench, criterion: str) -> None:
    """Oracle: the published code written out with diffusers' DDIM: cross entropy with the prediction itself or with the
    class, its gradient scaled to ‖z‖ and added before the step. Here it is taken at ẑ0 and through the guided prediction.
    """
    method = bench.rival("feedback", criterion=criterion, rho=0.03, start_step=4)
    batch = bench.batch(method)
    denoiser, classifier = batch.denoiser, bench.encoder.classifier
    timestep, scheduler = denoiser.scheduler.timesteps[bench.index], denoiser.scheduler
    latents = bench.latents.clone().requires_grad_()
    noise = denoiser.model(latents, timestep)
    alpha = scheduler.alphas_cumprod[timestep].double()
    clean = (latents - (1 - alpha).sqrt() * noise) / alpha.sqrt()
    logits = classifier(denoiser.decode(clean))
    target = F.softmax(logits, dim=-1) if criterion == "entropy" else F.one_hot(bench.labels, 3).double()
    (slope,) = torch.autograd.grad(F.cross_entropy(logits, target, reduction="none").sum(), latents)
    lengths = bench.latents.flatten(1).norm(dim=1) / slope.flatten(1).norm(dim=1)
    moved = bench.latents + 0.03 * lengths.view(-1, 1, 1, 1) * slope
    expected = scheduler.step(noise.detach(), timestep, moved).prev_sample
    torch.testing.assert_close(bench.step(method)[0], expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("criterion", ["entropy", "loss"])
def test_a_small_step_raises_the_criterion_of_every_image(bench: RealBench, criterion: str) -> None:
    method = bench.rival("feedback", criterion=criterion, rho=1e-4, start_step=4)
    batch, seen = bench.batch(method), []
    advance = batch.denoiser.advance
    batch.denoiser.advance = lambda latents, *rest: seen.append(latents) or advance(latents, *rest)
    method.step(bench.latents, bench.index, batch)
    with torch.no_grad():
        before, after = (
            method.objective(batch.raw_features(bench.clean(z)), batch) for z in (bench.latents, seen[0].detach())
        )
    assert (after < before).all()  # the objective is lowered, so the criterion is raised


def test_probabilities_are_the_guides_own_or_those_of_the_nearest_class_mean(bench: RealBench) -> None:
    """Oracle: the guide's head; 100 times the cosine to the mean of each class's unit features, normalised again."""
    raw = torch.randn(4, bench.encoder.feature_dim, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    own = log_probabilities(raw, bench.encoder, bench.real_features)
    torch.testing.assert_close(own.exp(), bench.encoder.classifier.head(raw).softmax(1))
    headless = Headless(smooth_classifier().backbone, bench.encoder)
    means = torch.stack([bench.real_features.features[[2 * c, 2 * c + 1]].mean(0) for c in range(3)])
    expected = (100 * F.cosine_similarity(raw[:, None], means[None], dim=2)).softmax(1)
    torch.testing.assert_close(log_probabilities(raw, headless, bench.real_features).exp(), expected)


def test_entropy_is_that_of_its_definition_and_finite_for_a_certain_classifier() -> None:
    assert entropy(torch.full((1, 4), math.log(0.25))).item() == pytest.approx(math.log(4))
    log_p = F.log_softmax(torch.tensor([[500.0, 0.0, -500.0]], requires_grad=True), dim=1)
    assert entropy(log_p).item() == 0.0


def test_a_certain_classifier_leaves_the_image_as_it_is() -> None:
    bench = RealBench()
    with torch.no_grad():
        bench.encoder.classifier.head.bias += torch.tensor([1e6, 0.0, 0.0])
    batch = bench.batch(bench.rival("feedback", start_step=4))
    guided, _ = bench.rival("feedback", start_step=4).step(bench.latents, bench.index, batch)
    assert batch.guided.all()
    torch.testing.assert_close(guided, bench.step(METHODS["none"]())[0], atol=1e-9, rtol=0)


@pytest.mark.parametrize("empty", [1, 2])
def test_a_class_without_real_images_is_still_a_class(bench: RealBench, empty: int) -> None:
    """Of three classes: the guide predicts all of them, and class means are those of the two that have images."""
    labels = [label for label in (0, 1, 2) if label != empty]
    real = exemplars(bench.real_features.features[[2 * label for label in labels]], labels, num_classes=3)
    raw = torch.randn(4, bench.encoder.feature_dim, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    own = log_probabilities(raw, bench.encoder, real)
    torch.testing.assert_close(own.exp(), bench.encoder.classifier.head(raw).softmax(1))
    found = log_probabilities(raw.requires_grad_(), Headless(smooth_classifier().backbone, bench.encoder), real)
    expected = (100 * F.cosine_similarity(raw[:, None], real.features[None], dim=2)).softmax(1)
    torch.testing.assert_close(found.exp()[:, labels], expected)
    assert (found.exp()[:, empty] == 0).all()
    torch.testing.assert_close(entropy(found), -(expected * expected.log()).sum(1))
    (slopes,) = torch.autograd.grad(entropy(found).sum(), raw)
    assert slopes.isfinite().all()
