"""Samplers that differ in their guidance alone share the steps before the first guided one, to the last bit."""

from collections.abc import Callable

import pytest
import torch
from bench import CLASSES, METHODS, random_prototypes, smooth_classifier
from pipelines import FAMILIES, small_pipeline

from distdiff.encoders.guide import GuideEncoder
from distdiff.energy.hierarchical import HierarchicalEnergy
from distdiff.energy.images import ImageEnergy
from distdiff.generator.beginnings import Beginning, Beginnings, beginnings_of
from distdiff.generator.denoiser import Denoiser
from distdiff.generator.latent_diffusion import LatentDiffusion
from distdiff.methods.img2img import Img2ImgSampler
from distdiff.methods.item import WorkItem
from distdiff.methods.synthesis import Synthesized

NUM_STEPS, STRENGTH, START = 8, 0.75, 3  # 6 steps run, of which 3 come before the first guided one
BEFORE = 3
MEMORYLESS = [("sd", "ddim"), ("sd_v", "euler"), ("sd3", "flow_euler")]
WITH_MEMORY = [("sd", "dpmpp_2m"), ("sd", "unipc"), ("lcm", "lcm")]


def items(*labels: int, copy: int = 0) -> list[WorkItem]:
    return [
        WorkItem(label, copy, 10 * label + copy, STRENGTH, label, str(label), "s.png", f"{label}/{copy}.png")
        for label in labels
    ]


class Samplers:
    """Samplers of one generator, and how often its network is asked."""

    def __init__(self, family: str, scheduler: str, monkeypatch: pytest.MonkeyPatch) -> None:
        self.generator = LatentDiffusion(FAMILIES[family](), NUM_STEPS, 2.0, 32, scheduler)
        self.generator.beginnings = Beginnings()
        torch.manual_seed(2)
        encoder = GuideEncoder(smooth_classifier())
        prototypes = random_prototypes(encoder.classifier.feature_dim, self.generator.latent_dtype)
        energy = HierarchicalEnergy(prototypes, class_weight=1.0, group_weight=1.0)
        self.energy = ImageEnergy(encoder.to(self.generator.latent_dtype), energy)
        self.latents = self.generator.encode(torch.rand(CLASSES, 3, 32, 32))
        self.asked = 0
        output = self.generator.family.output

        def counted(*given: object) -> torch.Tensor:
            self.asked += 1
            return output(*given)

        monkeypatch.setattr(self.generator.family, "output", counted)

    def of(self, method: str, words: str = "abc", kind: type[Img2ImgSampler] = Img2ImgSampler) -> Img2ImgSampler:
        guidance = METHODS[method](start_step=START)
        return kind(0, self.generator, self.generator.embed(list(words)), guidance, self.energy, self.latents)

    def make(self, method: str, of: list[WorkItem], words: str = "abc") -> tuple[Synthesized, int, float]:
        """The images, how often the network was asked, and the seconds that were spared."""
        before, sampler = self.asked, self.of(method, words)
        made = sampler(of)
        return made, self.asked - before, sampler.spared


def same(one: Synthesized, other: Synthesized) -> bool:
    return torch.equal(one.images, other.images) and one.columns == other.columns


@pytest.mark.parametrize(("family", "scheduler"), [*MEMORYLESS, *WITH_MEMORY])
def test_what_is_shared_changes_no_bit_and_is_asked_of_the_network_once(
    monkeypatch: pytest.MonkeyPatch, family: str, scheduler: str
) -> None:
    """Schedulers that remember earlier steps, or draw noise, share nothing."""
    samplers = Samplers(family, scheduler, monkeypatch)
    methods = ("direct", "none", "mpgd", "transform", "tfg", "direct")
    shared = [samplers.make(method, items(0, 1)) for method in methods]
    samplers.generator.beginnings = None
    alone = [samplers.make(method, items(0, 1)) for method in methods]
    assert all(same(one, other) for (one, *_), (other, *_) in zip(shared, alone, strict=True))
    assert {spared for *_, spared in alone} == {0}
    fewer = [there - here for (_, here, _), (_, there, _) in zip(shared, alone, strict=True)]
    spared = [seconds > 0 for *_, seconds in shared]
    if (family, scheduler) in MEMORYLESS:
        assert fewer == [0, BEFORE, BEFORE, BEFORE, BEFORE, BEFORE]
        assert spared == [False, True, True, True, True, True]
    else:
        assert fewer == [0] * len(methods)
        assert not any(spared)


def test_nothing_is_shared_by_batches_that_differ_in_anything(monkeypatch: pytest.MonkeyPatch) -> None:
    samplers = Samplers("sd", "ddim", monkeypatch)
    first = items(0, 1)
    whole = samplers.make("none", first)[1]
    longer = [WorkItem(**vars(item) | {"strength": 1.0}) for item in first]
    for of, words in (
        *((items(0, 1, copy=1), "abc"), (items(0), "abc"), (items(1, 0), "abc"), (items(0, 1, 2), "abc")),
        (first, "abd"[::-1]),
    ):
        assert samplers.make("none", of, words)[1] == whole
    assert samplers.make("none", longer)[1] == whole + 2
    monkeypatch.setattr(samplers.generator, "num_steps", 2 * NUM_STEPS)
    assert samplers.make("none", first)[1] == 2 * whole
    monkeypatch.undo()
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(threads + 1)
        assert samplers.make("none", first)[2] == 0
    finally:
        torch.set_num_threads(threads)
    assert samplers.make("none", first)[2] > 0


def test_a_method_that_does_more_in_its_steps_shares_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A subclass that acts before a step, or that puts a function in the network's place."""

    class Moving(Img2ImgSampler):
        def before_step(self, index: int, batch) -> None:
            batch.guided &= True

    class Replacing(Img2ImgSampler):
        def batch(self, *given):
            found = super().batch(*given)
            model = found.denoiser.model
            found.denoiser.model = lambda latents, timestep: model(latents, timestep)
            return found

    samplers = Samplers("sd", "ddim", monkeypatch)
    for kind in (Moving, Replacing):
        for _ in range(2):
            sampler = samplers.of("none", kind=kind)
            sampler(items(0, 1))
            assert sampler.spared == 0
    assert not len(samplers.generator.beginnings)


def test_what_is_kept_does_not_change_with_what_is_made_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    samplers = Samplers("sd", "ddim", monkeypatch)
    step = Denoiser.advance

    def in_place(denoiser: Denoiser, latents: torch.Tensor, output: torch.Tensor, index: int) -> torch.Tensor:
        following = step(denoiser, latents, output, index)
        latents.zero_()
        return following

    monkeypatch.setattr(Denoiser, "advance", in_place)
    made = [samplers.make("none", items(0, 1)) for _ in range(3)]
    assert [spared > 0 for *_, spared in made] == [False, True, True]
    assert all(same(made[0][0], other) for other, *_ in made[1:])


def test_those_that_were_used_longest_ago_make_room() -> None:
    latents = torch.zeros(2, 4, 8, 8)
    kept = Beginnings(room=2 * latents.nbytes)
    for key in "ab":
        kept.keep(key, Beginning(latents, 1.0))
    assert kept.find("a") is not None
    kept.keep("c", Beginning(latents, 1.0))
    assert [kept.find(key) is not None for key in "abc"] == [True, False, True]
    kept.keep("d", Beginning(torch.zeros(5, 4, 8, 8), 1.0))  # larger than the room
    assert len(kept) == 0


def test_a_process_keeps_those_of_one_generator() -> None:
    first = beginnings_of("one")
    assert beginnings_of("one") is first
    assert beginnings_of("other") is not first
    assert beginnings_of("one") is not first


def test_steps_of_a_scheduler_that_counts_begin_where_they_are_told() -> None:
    """After noise was added for step 2, step 4 is that of a denoiser which began there (Euler's σ of step 4)."""
    generator = LatentDiffusion(small_pipeline(), NUM_STEPS, 2.0, 32, "euler")
    prompts = generator.embed(["a"])
    draw: Callable[[], torch.Tensor] = lambda: torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))  # noqa: E731
    whole, later = generator.denoiser(prompts), generator.denoiser(prompts)
    latents = whole.add_noise(draw(), draw(), 2)
    with torch.no_grad():
        for index in (2, 3):
            latents = whole.advance(latents, whole.predict(latents, index), index)
        later.add_noise(draw(), draw(), 2)
        later.begin_at(4)
        output = whole.predict(latents, 4)
        assert torch.equal(whole.advance(latents, output, 4), later.advance(latents, output, 4))
