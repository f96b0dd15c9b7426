"""Time travel under a scheduler that adds noise as it steps (LCM): whose noise each repetition of a step draws."""

import pytest
import torch
from bench import METHODS, Bench
from diffusers.schedulers import scheduling_lcm

RECURRENT = {"freedom": {"recurrence": 3}, "tfg": {"recurrence": 3, "gamma": 0.0}}


@pytest.fixture(scope="module")
def bench() -> Bench:
    return Bench(scheduler="lcm")


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[torch.Tensor]:
    """The noise that the scheduler adds, (B, C, h, w) a step, in order."""
    tensors, draw = [], scheduling_lcm.randn_tensor

    def recorded(*arguments: object, **options: object) -> torch.Tensor:
        tensors.append(draw(*arguments, **options))
        return tensors[-1]

    monkeypatch.setattr(scheduling_lcm, "randn_tensor", recorded)
    return tensors


@pytest.mark.parametrize("name", RECURRENT)
def test_each_repetition_of_a_step_draws_fresh_noise(bench: Bench, drawn: list[torch.Tensor], name: str) -> None:
    bench.step(METHODS[name](**RECURRENT[name]))
    assert len(drawn) == 3
    for first, second in ((0, 1), (0, 2), (1, 2)):
        assert ((drawn[first] - drawn[second]).flatten(1).abs().amax(1) > 1).all()


@pytest.mark.parametrize("name", RECURRENT)
def test_the_samplers_own_noise_is_that_of_plain_denoising(bench: Bench, drawn: list[torch.Tensor], name: str) -> None:
    """The last repetition draws what `none` draws, and so do all the steps that follow."""
    for method in (METHODS["none"](), METHODS[name](**RECURRENT[name])):
        batch = bench.batch(method)
        latents, _ = method.step(bench.latents, bench.index, batch)
        with torch.no_grad():
            batch.denoiser.advance(latents, batch.denoiser.predict(latents, bench.index + 1), bench.index + 1)
    plain, travelled = drawn[:2], drawn[2:]
    assert len(travelled) == 4
    torch.testing.assert_close(torch.stack(travelled[2:]), torch.stack(plain), atol=0, rtol=0)


@pytest.mark.parametrize("name", RECURRENT)
def test_repetitions_depend_on_the_sample_alone(bench: Bench, name: str) -> None:
    """Neither its batch nor an earlier attempt changes a sample."""
    together, _ = bench.step(METHODS[name](**RECURRENT[name]))
    again, _ = bench.step(METHODS[name](**RECURRENT[name]))
    torch.testing.assert_close(again, together, atol=0, rtol=0)
    for member in range(3):
        alone, _ = bench.step(METHODS[name](**RECURRENT[name]), torch.tensor([member]))
        torch.testing.assert_close(alone, together[member : member + 1], atol=1e-8, rtol=0)


def test_a_rollout_sees_the_noise_that_the_sampler_will_add(bench: Bench, drawn: list[torch.Tensor]) -> None:
    """Transform's P = 2 rollout steps take one scheduler step, whose noise the sampler's own step draws again."""
    bench.step(METHODS["transform"]())
    assert len(drawn) == 2
    torch.testing.assert_close(drawn[0], drawn[1], atol=0, rtol=0)
