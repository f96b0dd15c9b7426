"""`method=interpolation`: images from noise on the circle through the inversions of two real images of a class."""

import math

import numpy as np
import pyarrow.parquet
import pytest
import torch
from conftest import compose
from pipelines import small_pipeline
from scipy.spatial import geometric_slerp
from small_expansion import contents, pixels, small_jobs
from unguided import PROMPTS, ZeroEnergy, three_images

from distdiff.errors import UserError
from distdiff.expansion.plan import ExpansionPlan
from distdiff.generator.inversion import invert
from distdiff.generator.inversions import ComputedInversions
from distdiff.generator.latent_diffusion import LatentDiffusion
from distdiff.methods.interpolation import Interpolation, on_circle

NOISE = torch.randn(2, 6, 4, 2, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def test_a_point_between_two_is_where_scipys_spherical_interpolation_has_it() -> None:
    first, second = (each / each.flatten(1).norm(dim=1).view(-1, 1, 1, 1) for each in NOISE)
    shares = torch.linspace(0, 1, 6, dtype=torch.float64)
    ours = on_circle(first, second, shares, whole=False).flatten(1)
    for row, share in enumerate(shares.tolist()):
        expected = geometric_slerp(first[row].flatten().numpy(), second[row].flatten().numpy(), share)
        np.testing.assert_allclose(ours[row], expected, atol=1e-12)


def test_the_circle_is_the_published_one() -> None:
    """Oracle: the published formula, one pair at a time. Its α runs over [0, 2π/θ], against our direction."""
    first, second = NOISE
    shares = torch.linspace(0, 0.9, 6, dtype=torch.float64)
    ours = on_circle(first, second, shares, whole=True)
    for z1, z2, share, point in zip(first, second, shares.tolist(), ours, strict=True):
        theta = math.acos(float((z1 * z2).sum() / (z1.norm() * z2.norm())))
        alpha = (1 - share) * 2 * math.pi / theta
        weights = math.sin((1 + alpha) * theta) / math.sin(theta), math.sin(alpha * theta) / math.sin(theta)
        torch.testing.assert_close(point, weights[0] * z1 - weights[1] * z2)
    same = on_circle(first, first.clone(), shares, whole=True)
    assert torch.equal(same, first)  # through equal points there is no circle


STEPS, INVERSION_STEPS = 6, 5


@pytest.fixture(scope="module")
def generator() -> LatentDiffusion:
    return LatentDiffusion(small_pipeline("v_prediction"), STEPS, 2.0, 32)


def synthesizer_of(generator: LatentDiffusion, path: str = "circle", split: float = 0.3, of_class=None):
    """With two prompts, one for each class, or as `of_class` says."""
    prompts = generator.embed(PROMPTS)
    if of_class is not None:
        prompts = type(prompts)(prompts.positive, prompts.negative, of_class)
    images = three_images()
    clean, method = (
        generator.encode(images.tensors(32, "squash")).mean,
        Interpolation(path=path, split=split, inversion_steps=INVERSION_STEPS),
    )

    def inverted(positions: torch.Tensor) -> torch.Tensor:
        own = prompts.select(torch.from_numpy(images.labels)[positions])
        return invert(generator, clean[positions], own, INVERSION_STEPS)

    inversions = ComputedInversions(inverted)
    return method.synthesizer(5, generator, prompts, ZeroEnergy(), inversions), inversions, method


def plan(method: Interpolation, factor: int = 3) -> ExpansionPlan:
    return ExpansionPlan(three_images(), factor, 0.3, 5, method=method)


def test_an_image_is_drawn_from_its_point_on_the_circle_whatever_shares_its_batch(generator) -> None:
    made, inversions, method = synthesizer_of(generator)
    items = list(plan(method))
    assert all(item.strength == 1.0 for item in items)
    together = made(items).images
    alone = torch.cat([made([item]).images for item in reversed(items)]).flip(0)
    torch.testing.assert_close(together, alone, atol=1 / 255, rtol=0)
    assert list(plan(method, 5))[: len(items)] == items  # a larger factor only appends
    cats = [item for item in items if item.label == 0]
    for item in cats:  # two images: each other's partner
        assert item.partners == ({0: 2, 2: 0}[item.position],)
    item = cats[0]
    share = np.random.default_rng(item.seed_for(5, "path")).random()
    first, second = inversions.select(torch.tensor([item.position, *item.partners])).split(1)
    denoiser = generator.denoiser(generator.embed(PROMPTS[:1]))
    latents = on_circle(first, second, torch.tensor([share]), whole=True)
    with torch.no_grad():
        for index in range(STEPS):
            latents = denoiser.advance(latents, denoiser.predict(latents, index), index)
        expected = generator.decode(latents).clamp(0, 1)
    torch.testing.assert_close(together[items.index(item)][None], expected, atol=1e-4, rtol=0)


def test_copies_of_the_only_image_of_a_class_differ(generator) -> None:
    """Its inversion alone would give equal copies; noise of each image's own seed takes the place of the other."""
    made, _, method = synthesizer_of(generator, "between")
    dogs = [item for item in plan(method) if item.label == 1]
    assert {item.partners for item in dogs} == {(1,)}
    images = made(dogs).images
    assert all((images[i] - images[j]).abs().max() > 0.01 for i in range(3) for j in range(i))


def test_the_drawn_prompt_holds_for_the_noisy_part_and_the_first_prompt_for_the_rest(generator) -> None:
    second = ((1, 0), (1, 0))  # the first prompt of both classes is the second sentence
    drawn = {split: synthesizer_of(generator, split=split, of_class=second)[0] for split in (0.0, 0.3, 1.0)}
    plain = {number: synthesizer_of(generator, of_class=((number,), (number,)))[0] for number in (0, 1)}
    items = list(plan(Interpolation(path="circle", split=0.3, inversion_steps=INVERSION_STEPS)))
    numbers = drawn[0.3].prompt_numbers(items).tolist()
    item = items[numbers.index(0)]
    of = {name: made([item]).images for name, made in (drawn | {"plain0": plain[0], "plain1": plain[1]}).items()}
    torch.testing.assert_close(of[1.0], of["plain0"], atol=1e-6, rtol=0)
    torch.testing.assert_close(of[0.0], of["plain1"], atol=1e-6, rtol=0)
    assert (of[0.3] - of[0.0]).abs().max() > 1e-4 < (of[0.3] - of[1.0]).abs().max()


def test_it_costs_the_inversion_of_each_source_once_and_two_evaluations_a_step(generator) -> None:
    evaluated: list[int] = []
    counting = generator.network.register_forward_pre_hook(lambda _, given: evaluated.append(len(given[0])))
    made, _, method = synthesizer_of(generator)
    for _ in range(2):
        made(list(plan(method, 2)))
    counting.remove()
    assert sum(evaluated) == 3 * INVERSION_STEPS + 2 * 6 * 2 * STEPS


def test_an_expansion_names_both_sources_and_goes_on_after_a_stop(small_run, image_folder, tmp_path, capsys) -> None:
    given = ["method=interpolation", "method.inversion_steps=4", "expansion.factor=1"]
    job = small_jobs(small_run, image_folder, tmp_path)(*given)
    job.run("test")
    rows = pyarrow.parquet.read_table(job.path / "metadata.parquet").to_pylist()
    for row in rows:
        own, other = row["sources"]
        assert own.split("/")[0] == other.split("/")[0] == row["class_name"]
        assert own != other
    whole, images = contents(job.path), pixels(job.path)
    lost = sorted(job.path.glob("[!.]*/*.png"))[1]
    lost.unlink()
    again = small_jobs(small_run, image_folder, tmp_path)(*given, "expansion.batch_size=1")
    again.run("test")
    assert contents(job.path).keys() == whole.keys()
    assert max(np.abs(pixels(job.path)[name] - images[name]).max() for name in images) <= 1


def test_what_cannot_be_inverted_is_refused_before_anything_loads(small_run) -> None:
    for key, words in (
        ("generator.scheduler=lcm", "a latent consistency model or generator.scheduler=lcm is not allowed"),
        ("generator.num_steps=4", "generator.num_steps=4 is not allowed: at least 5; a model that is distilled"),
        ("expansion.strength=0.5", "expansion.strength=0.5 is not allowed: method=interpolation does not read"),
        ("method.split=2", r"method.split=2.0 is not allowed: a number at least 0, at most 1"),
    ):
        with pytest.raises(UserError, match=f"^{words}"):
            compose("expand", [*small_run, "method=interpolation", key])
