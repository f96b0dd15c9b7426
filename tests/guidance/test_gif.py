"""Guided imagination, against the published update on fixed tensors."""

import pytest
import torch
from bench import METHODS
from rivals import RealBench, rival
from test_feedback import Headless
from torch import nn
from torch.nn import functional as F


def published(bench: RealBench, latents: torch.Tensor, epsilon: float) -> torch.Tensor:
    """The published code written out: CLIP's classifier is here that of the class means, and the class is known."""
    generators = [torch.Generator().manual_seed(100 + i) for i in range(len(latents))]
    draws = [(torch.rand((4, 1, 1), generator=g), torch.randn((4, 1, 1), generator=g)) for g in generators]
    noise, bias = (torch.stack(parts).double().requires_grad_() for parts in zip(*draws, strict=True))
    pictures = bench.generator.decode(latents * (1 + noise) + bias)
    features = bench.encoder.features(pictures)
    features = features / features.norm(dim=-1, keepdim=True)
    means = bench.real_features.class_means
    probabilities = (100.0 * features @ means.T).softmax(dim=-1)
    information = -(probabilities * torch.log(probabilities)).sum(dim=1).mean()
    kept = torch.gather(probabilities, 1, bench.labels.unsqueeze(1)).mean()
    mean = features.mean(0, keepdim=True).repeat([len(latents), 1])
    kl = nn.KLDivLoss(reduction="batchmean", log_target=True)
    score = information + kept + kl(F.log_softmax(features, dim=1), F.log_softmax(mean, dim=1))
    slopes = torch.autograd.grad(score, [noise, bias])
    with torch.no_grad():
        moved = latents * (1 + noise + 0.1 * slopes[0].sign()) + bias + 0.1 * slopes[1].sign()
        return torch.minimum(torch.maximum(moved, latents - epsilon), latents + epsilon)


@pytest.fixture
def bench() -> RealBench:
    made = RealBench()
    made.encoder = Headless(made.encoder.classifier.backbone, made.encoder)
    return made


@pytest.mark.parametrize("epsilon", [0.8, 1e9])
def test_the_finished_latents_move_as_published(bench: RealBench, epsilon: float) -> None:
    method = bench.rival("gif", epsilon=epsilon, group_size=3)
    found = method.imagined(bench.latents, bench.batch(method))
    expected = published(bench, bench.latents, epsilon)
    torch.testing.assert_close(found, expected, atol=1e-9, rtol=0)
    assert (found - bench.latents).abs().max() > (0.5 if epsilon < 1 else 1)


def test_the_last_step_alone_is_guided_and_epsilon_zero_is_no_guidance(bench: RealBench) -> None:
    method = bench.rival("gif", epsilon=0.0)
    assert list(method.guided_steps(method.schedule(8, 0.75))) == [7]
    guided, energies = bench.step(method)
    plain, expected = bench.step(METHODS["none"]())
    torch.testing.assert_close(guided, plain, atol=1e-9, rtol=0)
    torch.testing.assert_close(energies, expected, atol=1e-9, rtol=0)


def test_a_step_up_the_score_raises_it(bench: RealBench) -> None:
    method = bench.rival("gif", init="identity", rho=1e-4, epsilon=1e9, group_size=3)
    batch = bench.batch(method)

    def score(latents: torch.Tensor) -> float:
        return method.scores(batch.raw_features(latents), batch).sum().item()

    with torch.no_grad():
        assert score(method.imagined(bench.latents, batch)) > score(bench.latents)


def test_a_copy_alone_has_no_divergence_from_itself(bench: RealBench) -> None:
    method = bench.rival("gif")
    batch = bench.batch(method, torch.tensor([1]))
    raw = torch.randn(1, bench.encoder.feature_dim, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    p = (100 * F.normalize(raw, dim=1) @ bench.real_features.class_means.T).softmax(1)[0]
    expected = -(p * p.log()).sum() + p[1]
    assert method.scores(raw, batch).item() == pytest.approx(expected.item(), rel=1e-9)
    assert rival("gif", None).group_size == 2


@pytest.mark.parametrize("broken", [[1], [0, 2], [0, 1, 2]])
def test_a_broken_copy_spoils_no_other(bench: RealBench, broken: list[int]) -> None:
    method = bench.rival("gif", epsilon=1e9, group_size=3)
    latents, batch = bench.latents.clone(), bench.batch(method)
    latents[broken] = torch.nan
    found = method.imagined(latents, batch)
    whole = torch.tensor([place for place in range(3) if place not in broken], dtype=torch.long)
    assert batch.guided.tolist() == [place not in broken for place in range(3)]
    if len(whole):  # as if the others alone were the group
        expected = method.imagined(bench.latents[whole], bench.batch(method, whole))
        torch.testing.assert_close(found[whole], expected, atol=1e-12, rtol=0)
