"""Copies of different strengths share a batch only where all their steps, guided ones included, are the same.

`Img2ImgSampler.group` decides that; the strengths here lie below M / num_steps, where M depends on the strength.
"""

import numpy as np
import pytest
import torch
from bench import CLASSES, METHODS, random_prototypes, smooth_classifier
from pipelines import small_pipeline

from distdiff.encoders.guide import GuideEncoder
from distdiff.energy.hierarchical import HierarchicalEnergy
from distdiff.energy.images import ImageEnergy
from distdiff.generator.latent_diffusion import LatentDiffusion
from distdiff.methods.img2img import Img2ImgSampler
from distdiff.methods.item import WorkItem

NUM_STEPS = 50  # M is 20
STRENGTHS = np.linspace(0.2, 0.6, 81).tolist()  # M / num_steps = 0.4
KEYS = {"start_step": None, "period": None}


def synthesizer(method: str, num_steps: int = NUM_STEPS) -> Img2ImgSampler:
    torch.manual_seed(0)
    generator = LatentDiffusion(small_pipeline().to(torch.float64), num_steps, 1.0, 32)
    encoder = GuideEncoder(smooth_classifier()).to(torch.float64)
    energy = HierarchicalEnergy(random_prototypes(encoder.classifier.feature_dim), class_weight=1.0, group_weight=1.0)
    sources = torch.rand(CLASSES, 3, 32, 32, generator=torch.Generator().manual_seed(3))
    return Img2ImgSampler(
        generator,
        METHODS[method](**KEYS),
        ImageEnergy(encoder, energy),
        generator.encode(sources),
        generator.embed(["a", "b", "c"]),
        seed=0,
    )


def item(strength: float, copy: int) -> WorkItem:
    return WorkItem(0, copy, 10 + copy, strength, 0, "0", "s.png", f"0/{copy}.png")


@pytest.mark.parametrize("method", ["none", "direct", "transform", "transform_official"])
def test_copies_of_one_group_have_one_schedule(method: str) -> None:
    sampler = synthesizer(method)
    schedules: dict[object, set] = {}
    for strength in STRENGTHS:
        schedules.setdefault(sampler.group(strength), set()).add(sampler.schedule(strength))
    assert {len(found) for found in schedules.values()} == {1}
    assert len(schedules) < len(STRENGTHS)  # and still share batches


def test_a_range_of_strengths_does_not_make_the_official_method_depend_on_the_batch() -> None:
    """Strengths 0.35 and 0.36 of 50 steps both start at step 32; the first guided steps are 33 and 32."""
    sampler = synthesizer("transform_official")
    items = [item(0.35, 0), item(0.36, 1)]
    groups: dict[object, list[WorkItem]] = {}
    for one in items:
        groups.setdefault(sampler.group(one.strength), []).append(one)
    together = {
        one.copy: image for same in groups.values() for one, image in zip(same, sampler(same).images, strict=True)
    }
    for one in items:
        torch.testing.assert_close(together[one.copy], sampler([one]).images[0], atol=1e-8, rtol=0)
