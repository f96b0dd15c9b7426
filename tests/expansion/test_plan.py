"""A plan's cost: a million images are planned before the first is made."""

from collections import Counter
from typing import Any

import numpy as np
import pytest
from counting import calls_of

from distdiff.data.images import LabelledImages
from distdiff.expansion.plan import ExpansionPlan


def large(sources: int) -> LabelledImages:
    """That many images that nobody will read, of a thousand classes."""
    labels = np.arange(sources) % 1000
    names = tuple(f"class {label}" for label in range(1000))
    keys = tuple(f"folder/image_{i}.jpg" for i in range(sources))
    return LabelledImages("large", names, labels, keys, read=None, indices=labels)


def in_batches(images: LabelledImages, factor: int, strength: Any) -> list[np.ndarray]:
    plan = ExpansionPlan(images, factor, strength, seed=0)
    return plan.batches(plan.missing(()), 8, group=lambda strength: 0)


def test_a_million_images_are_planned() -> None:
    batches = in_batches(large(100_000), 10, 0.5)
    assert sum(map(len, batches)) == len(np.unique(np.concatenate(batches))) == 1_000_000


@pytest.mark.parametrize(("strength", "a_copy"), [(0.5, 6), ([0.3, 0.5], 6), ({"low": 0.3, "high": 0.5}, 20)])
def test_a_plan_takes_a_few_calls_an_image_so_that_a_million_take_seconds(strength: Any, a_copy: int) -> None:
    """Measured: 1 s for a million on one core, 3 s with a strength drawn an image. Names are made once a source."""

    def calls(sources: int, factor: int) -> Counter[str]:
        images = large(sources)
        return calls_of(lambda: in_batches(images, factor, strength))

    calls(1000, 1)  # what the first time alone costs
    few, more_sources, more_copies = calls(2000, 10), calls(4000, 10), calls(2000, 20)
    assert more_sources.total() < 2.1 * few.total()
    assert more_copies.total() - few.total() < a_copy * 20_000
    assert few["safe_name"] == more_copies["safe_name"] == 3000
    assert few["ExpansionPlan.__getitem__"] == 0
