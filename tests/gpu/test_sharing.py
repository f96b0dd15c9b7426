"""What samplings with different guidance share is kept in main memory, and gives the images of sampling alone."""

from pathlib import Path

import pytest
import torch
from on_device import RANDOM, job

from distdiff.generator.beginnings import Beginnings

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_shared_steps_change_no_image_and_take_no_memory_of_the_card(
    device: torch.device, tmp_path: Path, precision: str
) -> None:
    keys = [*RANDOM, "generator.architecture=toy", "expansion.strength=1", f"generator.dtype={precision}"]
    expansions = [job(device, tmp_path, *keys, f"guidance={guidance}") for guidance in ("none", "direct")]
    unguided, guided = (expansion.synthesizer("test").to(device).eval() for expansion in expansions)
    items = [expansions[0].plan[index] for index in range(4)]
    alone = guided(items)
    kept = guided.generator.beginnings = unguided.generator.beginnings = Beginnings()
    with unguided.alone():
        unguided(items)
    assert not list(kept)
    unguided(items)
    assert [beginning.latents.device.type for beginning in kept] == ["cpu"]
    again = guided(items)
    assert guided.spared > 0
    tolerance = (
        {"atol": 0, "rtol": 0} if device.type == "cpu" else {"atol": 0.05, "rtol": 0}
    )  # a card adds in any order
    torch.testing.assert_close(again.images, alone.images, **tolerance)
