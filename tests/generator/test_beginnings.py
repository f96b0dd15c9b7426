"""Samplers that differ in their guidance alone share the steps before the first guided one, to the last bit."""

from collections.abc import Callable

import pytest
import torch
from bench import CLASSES, METHODS, random_prototypes, smooth_classifier
from pipelines import FAMILIES, small_pipeline

from distdiff.encoders.guide import GuideEncoder
from distdiff.energy.hierarchical import HierarchicalEnergy
from distdiff.energy.images import ImageEnergy
from distdiff.generator.beginnings import Beginning, Beginnings, Store
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
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(samplers.generator, "num_steps", 2 * NUM_STEPS)
        assert samplers.make("none", first)[1] == 2 * whole
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(samplers.generator, "cfg_scale", 3.0)
        assert samplers.make("none", first)[1] == whole
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(threads + 1)
        assert samplers.make("none", first)[2] == 0
    finally:
        torch.set_num_threads(threads)
    assert samplers.make("none", first)[2] > 0


def test_a_method_that_does_more_in_its_steps_shares_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A subclass that acts before a step, or that puts something in the place of the network or of the denoiser."""

    class Moving(Img2ImgSampler):
        def before_step(self, index: int, batch) -> None:
            batch.guided &= True

    class Replacing(Img2ImgSampler):
        def batch(self, *given):
            found = super().batch(*given)
            model = found.denoiser.model
            found.denoiser.model = lambda latents, timestep: model(latents, timestep)
            return found

    class OwnDenoiser(Denoiser):
        def predict(self, latents: torch.Tensor, index: int) -> torch.Tensor:
            return super().predict(latents, index) * 0.9

    class Predicting(Img2ImgSampler):
        def batch(self, *given):
            found = super().batch(*given)
            found.denoiser.__class__ = OwnDenoiser
            return found

    samplers = Samplers("sd", "ddim", monkeypatch)
    for kind in (Moving, Replacing, Predicting):
        for _ in range(2):
            sampler = samplers.of("none", kind=kind)
            sampler(items(0, 1))
            assert sampler.spared == 0
    assert not list(samplers.generator.beginnings)


def test_nothing_is_used_or_kept_alone_even_if_it_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    samplers = Samplers("sd", "ddim", monkeypatch)
    sampler = samplers.of("none")
    for _ in range(2):
        with sampler.alone():
            sampler(items(0, 1))
    with pytest.raises(ZeroDivisionError), sampler.alone():
        raise ZeroDivisionError
    assert sampler.spared == 0
    assert not list(samplers.generator.beginnings)
    sampler(items(0, 1))
    assert len(list(samplers.generator.beginnings)) == 1


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


def walk(store: Store, batches: str, user: object) -> int:
    """A sampler goes through batches of 2 kB each; how many of them it finds."""
    found = 0
    for key in batches:
        if store.find(key, user) is None:
            store.keep(key, Beginning(torch.zeros(2, 4, 8, 8), 1.0, user))
        else:
            found += 1
    assert store.taken == sum(each.latents.nbytes for each in store.kept.values()) <= store.room
    return found


def test_of_more_batches_than_there_is_room_for_the_first_are_found_again() -> None:
    store = Store(room=3 * 2048)
    assert [walk(store, "abcdef", object()) for _ in range(3)] == [0, 3, 3]
    assert [walk(store, "uvwx", object()) for _ in range(3)] == [
        0,
        3,
        3,
    ]  # of another data seed: the old ones make room
    assert walk(store, "a", object()) == 0
    assert list(store.kept) == ["v", "w", "a"]  # the one that was not used for longest has gone


def test_a_beginning_that_is_kept_again_or_too_large_leaves_the_others() -> None:
    store, user = Store(room=2 * 2048), object()
    for _ in range(3):
        store.keep("a", Beginning(torch.zeros(2, 4, 8, 8), 1.0, user))
    assert (list(store.kept), store.taken) == (["a"], 2048)
    store.keep("b", Beginning(torch.zeros(5, 4, 8, 8), 1.0, user))
    assert (list(store.kept), store.taken) == (["a"], 2048)


def test_generators_that_take_turns_find_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """They share a store; the same latents and prompts are not the same batch of another generator."""
    store = Store()
    one, other = Samplers("sd", "ddim", monkeypatch), Samplers("sd", "ddim", monkeypatch)
    one.generator.beginnings, other.generator.beginnings = Beginnings("one", store), Beginnings("other", store)
    spared = [samplers.make("none", items(0, 1))[2] > 0 for samplers in (one, other, one, other)]
    assert spared == [False, False, True, True]
    assert len(store.kept) == 2


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
