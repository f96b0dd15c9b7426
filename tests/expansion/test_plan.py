"""A plan's cost: a million images are planned before the first is made."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from counting import calls_of, steps_of

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


@pytest.mark.parametrize("strength", [0.5, [0.3, 0.5], {"low": 0.3, "high": 0.5}])
def test_the_work_of_a_plan_grows_with_its_images_so_that_a_million_take_seconds(strength: Any) -> None:
    """Measured: 1 s for a million on one core, 3 s with a strength drawn an image. Names are made once a source."""

    def planning(sources: int, factor: int) -> Callable[[], object]:
        images = large(sources)
        return lambda: in_batches(images, factor, strength)

    planning(1000, 1)()  # what the first time alone costs
    few, more_sources, more_copies = planning(1000, 10), planning(2000, 10), planning(1000, 20)
    steps = steps_of(few)
    assert steps_of(more_sources) < 2.1 * steps
    assert steps_of(more_copies) < 2.1 * steps
    for run in (few, more_copies):
        calls = calls_of(run)
        assert calls["safe_name"] == 1000 + 1000  # of classes and of sources
        assert calls["ExpansionPlan.__getitem__"] == 0
