"""What holds for every guidance method that compares new images with real ones."""

import pytest
import torch
from bench import smooth_classifier
from pipelines import FAMILIES
from rivals import RIVALS, RealBench, items, rival, sampler

from distdiff.encoders.guide import GuideEncoder
from distdiff.errors import UserError
from distdiff.guidance.schedule import StepSchedule

# Each kind of output of a network, and schedulers with several steps of memory, with noise of their own and with scales.
KINDS = (("sd", "unipc"), ("sd_v", "euler"), ("sd3", "flow_euler"), ("lcm", "lcm"))
TOGETHER = ("particles", "gif")  # whose copies of a source depend on each other
WITH_GRADIENTS = ("chamfer", "feedback")  # of a function of the features


@pytest.fixture
def encoder() -> GuideEncoder:
    torch.manual_seed(1)
    return GuideEncoder(smooth_classifier())


@pytest.mark.parametrize(("family", "scheduler"), KINDS)
def test_every_rival_guides_every_kind_of_model_and_none_of_it_is_left_at_rho_zero(encoder, family, scheduler) -> None:
    """Each image moves; with ρ = 0 (ε = 0), each image is that of no guidance, multistep states and random streams included."""
    pipeline = FAMILIES[family]()
    copies = items(2, labels=1)
    plain = sampler(pipeline, scheduler, encoder, "none")(copies)
    for name in RIVALS:
        made = sampler(pipeline, scheduler, encoder, name)(copies)
        assert torch.isfinite(made.images).all(), name
        assert all(made.columns["gradient_finite"]), name
        assert ((made.images - plain.images).abs().amax((1, 2, 3)) > 1e-4).all(), name
        strength = "epsilon" if name == "gif" else "rho"
        off = sampler(pipeline, scheduler, encoder, name, **{strength: 0.0})(copies)
        torch.testing.assert_close(off.images, plain.images, atol=1e-5, rtol=0, msg=name)
        assert torch.isfinite(torch.tensor(made.columns["energy_before"])).all(), name


@pytest.mark.parametrize("name", [name for name in RIVALS if name not in TOGETHER])
def test_batch_size_and_order_change_no_image_of_a_rival(encoder, name: str) -> None:
    """In float64, through the whole sampler: 8 images at once, one by one, and in another order, to 1e-8.

    Copies that are made together are tested with the method that makes them.
    """
    make = sampler(FAMILIES["sd"]().to(torch.float64), "ddim", encoder, name, num_steps=3)
    of = items(4)
    together = make(of)
    for place in (0, 7):
        torch.testing.assert_close(make([of[place]]).images, together.images[[place]], atol=1e-8, rtol=0)
    order = [5, 2, 7, 0, 1, 6, 4, 3]
    torch.testing.assert_close(make([of[i] for i in order]).images, together.images[order], atol=1e-8, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_latents_and_energies_of_a_rival_stay_in_float32(dtype: torch.dtype) -> None:
    bench = RealBench(dtype=dtype)
    for name in RIVALS:
        latents, energies = bench.step(bench.rival(name, **({} if name == "gif" else {"start_step": 4})))
        assert (latents.dtype, energies.dtype) == (torch.float32, torch.float32), name
        assert torch.isfinite(latents).all(), name


@pytest.mark.parametrize("name", WITH_GRADIENTS)
def test_an_image_with_a_broken_gradient_goes_on_unguided_beside_its_guided_neighbours(encoder, name: str) -> None:
    pipeline = FAMILIES["sd"]().to(torch.float64)
    guided = sampler(pipeline, "ddim", encoder, name)(items(labels=3))
    plain = sampler(pipeline, "ddim", encoder, "none")(items(labels=3))

    class Broken(GuideEncoder):
        broken = False

        def extract(self, inputs: torch.Tensor) -> torch.Tensor:
            features = super().extract(inputs)
            factor = torch.ones(len(features), 1, dtype=features.dtype)
            factor[1] = torch.nan if self.broken else 1
            return features * factor

    classifier = Broken(encoder.classifier)
    make = sampler(pipeline, "ddim", classifier, name)
    make.image_energy.encoder.broken = True
    broken = make(items(labels=3))
    assert broken.columns["gradient_finite"] == [True, False, True]
    torch.testing.assert_close(broken.images[[0, 2]], guided.images[[0, 2]], atol=1e-8, rtol=0)
    torch.testing.assert_close(broken.images[1], plain.images[1], atol=1e-8, rtol=0)


def test_guidance_from_the_first_step_ends_with_its_share_and_a_typed_period_takes_its_place() -> None:
    """Oracle: counting. At strength 0.75 of 8 steps, steps 2 to 7 run; half of the six is left at step 5."""

    def guided(**keys: object) -> list[int]:
        method = rival("chamfer", None, every=1, **keys)
        return list(method.guided_steps(method.schedule(8, 0.75)))

    assert guided(until=0) == [2, 3, 4, 5, 6, 7]
    assert guided(until=0.5) == [2, 3, 4]
    assert guided(until=1) == [2]
    assert guided(until=0.5, start_step=5) == [3, 4]
    assert guided(until=0.5, period=5) == [2, 3, 4, 5, 6]
    method = rival("chamfer", None, until=0, every=2)
    assert list(method.guided_steps(method.schedule(8, 0.75))) == [2, 4, 6]
    with pytest.raises(UserError, match=r"guidance.period=7 is not allowed: from start_step 6 on there are 6 steps"):
        StepSchedule.of(8, 0.75, None, 7, from_the_first=True)
