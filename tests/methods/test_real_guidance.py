"""`method=real_guidance`: img2img whose strength follows from the number of real images of each class."""

from collections import Counter

import numpy as np
import pyarrow.parquet
import pytest
import torch
from conftest import compose
from pipelines import small_pipeline
from small_expansion import pixels, small_jobs
from unguided import PROMPTS, ZeroEnergy, synthesizer, three_images

from distdiff.commands.configuration import load_option
from distdiff.commands.preview import preview
from distdiff.data.images import LabelledImages
from distdiff.errors import UserError
from distdiff.expansion.plan import ExpansionPlan
from distdiff.generator.latent_diffusion import LatentDiffusion
from distdiff.keys import build
from distdiff.methods.real_guidance import RealGuidance

# Of 100 steps of denoising, by the number of shots: README.md of github.com/CVMI-Lab/SyntheticData at 00024f8.
PUBLISHED = {16: 15, 8: 20, 4: 35, 2: 40, 1: 50}


def test_the_published_strengths_are_the_defaults() -> None:
    method = build(load_option("method", "real_guidance"))
    assert {shots: method.strength(shots) for shots in PUBLISHED} == {n: steps / 100 for n, steps in PUBLISHED.items()}
    assert [method.strength(shots) for shots in (3, 5, 7, 15, 17, 1000)] == [0.4, 0.35, 0.35, 0.2, 0.15, 0.15]
    assert {RealGuidance(strengths=[0.3]).strength(shots) for shots in (1, 2, 100)} == {0.3}
    with pytest.raises(UserError, match=r"^method.strengths=\[\] is not allowed"):
        RealGuidance(strengths=[])


def of_sizes(*sizes: int) -> LabelledImages:
    labels = np.repeat(np.arange(len(sizes)), sizes)
    names = tuple(f"class{number}" for number in range(len(sizes)))
    return LabelledImages("any", names, labels, tuple(map(str, range(len(labels)))), None, np.arange(len(labels)))


def test_each_class_has_its_own_strength_whatever_the_factor_and_batches_hold_one_strength() -> None:
    method = RealGuidance(strengths=[0.5, 0.4, 0.3])
    plans = [ExpansionPlan(of_sizes(1, 2, 9), factor, [0.7, 0.9], 0, method=method) for factor in (2, 3)]
    assert [{item.strength for item in plans[0] if item.label == label} for label in range(3)] == [{0.5}, {0.4}, {0.3}]
    assert list(plans[1])[: len(plans[0])] == list(plans[0])
    batches = plans[0].batches(np.arange(len(plans[0])), 4, lambda strength: strength)
    assert [len({plans[0][int(i)].strength for i in batch}) for batch in batches] == [1] * len(batches)
    assert sorted(np.concatenate(batches)) == list(range(len(plans[0])))
    chosen = ExpansionPlan(of_sizes(1, 2, 9), 2, 0.5, 0, method=method, chosen=np.array([2, 3]))
    assert {item.strength for item in chosen} == {0.4, 0.3}  # all real images of the class count, not the chosen ones


def test_images_are_those_of_unguided_img2img_at_that_strength() -> None:
    generator = LatentDiffusion(small_pipeline(), 10, 2.0, 32)
    method, images = RealGuidance(strengths=[0.5, 0.8]), three_images()
    plan = ExpansionPlan(images, 1, 0.3, 5, method=method)
    latents = generator.encode(images.tensors(32, "squash"))
    ours = method.synthesizer(5, generator, generator.embed(PROMPTS), ZeroEnergy(), latents)
    for label, strength in ((0, 0.8), (1, 0.5)):  # two cats, one dog
        items = [item for item in plan if item.label == label]
        plain = [item for item in ExpansionPlan(images, 1, strength, 5) if item.label == label]
        assert [item.strength for item in items] == [strength] * len(items)
        expected = synthesizer(generator, images)(plain).images
        torch.testing.assert_close(ours(items).images, expected, atol=1e-6, rtol=0)


def test_neither_strength_nor_guidance_are_read(small_run, image_folder, tmp_path) -> None:
    jobs = small_jobs(small_run, image_folder, tmp_path)
    job = jobs("method=real_guidance", "expansion.factor=1", "expansion.batch_size=3")
    job.run("test")
    rows = pyarrow.parquet.read_table(job.path / "metadata.parquet").to_pylist()
    shots = Counter(row["class_name"] for row in rows)  # one copy of each
    known = build(load_option("method", "real_guidance"))
    assert {row["strength"] for row in rows} == {known.strength(count) for count in shots.values()}
    other = jobs("method=real_guidance", "expansion.factor=1", f"expansion.output_dir={tmp_path}/alone")
    assert other.fingerprint == job.fingerprint
    other.run("test")
    ours, alone = pixels(job.path), pixels(other.path)
    assert max(np.abs(ours[name] - alone[name]).max() for name in ours) <= 1
    for key in ("expansion.strength=0.3", "guidance=direct"):
        with pytest.raises(
            UserError, match=r"method=real_guidance does not read (expansion.strength|the guidance keys)"
        ):
            compose("expand", [*small_run, "method=real_guidance", key])
    with pytest.raises(UserError, match=r"^method.strengths\[0\]=1.5 is not allowed: a number above 0, at most 1$"):
        compose("expand", [*small_run, "method=real_guidance", "method.strengths=[1.5]"])


def test_a_strength_that_leaves_no_step_names_its_own_key_before_the_guide_is_trained(
    small_run, image_folder, tmp_path
) -> None:
    jobs = small_jobs(small_run, image_folder, tmp_path)
    with pytest.raises(UserError, match=r"^method.strengths\[0\]=0.1 is not allowed: of 6 steps it leaves none"):
        jobs("method=real_guidance", "method.strengths=[0.1]")
    given = [*small_run, "dataset=imagefolder", f"dataset.root='{image_folder}'", "method=real_guidance"]
    with pytest.raises(UserError, match=r"^method.strengths\[0\]=0.1 is not allowed"):
        preview(compose("preview", [*given, "method.strengths=[0.1]"]), tmp_path)
    assert not list(tmp_path.rglob("model.safetensors"))


def test_only_strengths_of_class_sizes_that_are_there_are_refused() -> None:
    method = RealGuidance(strengths=[0.5, 0.4, 0.1])
    method.check([1, 2, 3], num_steps=6, counting="floor")
    method.check([4], num_steps=6, counting="all")
    with pytest.raises(UserError, match=r"^method.strengths\[2\]=0.1 is not allowed: of 6 steps .* from 0.1667 to 1$"):
        method.check([1, 4], num_steps=6, counting="floor")


def test_what_cannot_be_done_by_the_model_of_the_hub_is_still_named_while_images_are_made() -> None:
    generator, images = LatentDiffusion(small_pipeline(), 6, 2.0, 32), three_images()
    method = RealGuidance(strengths=[0.1])
    sampler = method.synthesizer(
        0, generator, generator.embed(PROMPTS), ZeroEnergy(), generator.encode(images.tensors(32, "squash"))
    )
    with pytest.raises(UserError, match=r"^method.strengths=0.1 is not allowed: of 6 steps it leaves none"):
        sampler.group(0.1)
