"""What an expansion takes is divided among its parts without loss, and measuring changes no image."""

import math
from pathlib import Path

import pytest
import torch
from conftest import compose
from torch import nn

from distdiff.benchmark.flops import flop_counter
from distdiff.benchmark.parts import BACKWARD, REST, MeterParts, PartMeter
from distdiff.caching.stages import StageCache
from distdiff.classification.training import few_shot_training_set
from distdiff.data.datasets import load_dataset
from distdiff.expansion.assembly import Assembly
from distdiff.generator.kinds import count_steps


class Ticks:
    """A reading that code under test moves on by hand."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Costly(torch.autograd.Function):
    """Doubles its input, and takes 3 ticks forwards and 5 backwards."""

    @staticmethod
    def forward(context, tensor, ticks):
        context.ticks = ticks
        ticks.now += 3
        return tensor * 2

    @staticmethod
    def backward(context, gradient):
        context.ticks.now += 5
        return gradient * 2, None


def test_a_part_inside_another_counts_for_itself() -> None:
    ticks = Ticks()
    meter = PartMeter(ticks)
    with meter.part("before"):
        ticks.now += 100
    meter.start()
    ticks.now += 1
    with meter.part("outer"):
        ticks.now += 10
        with meter.part("inner"):
            ticks.now += 20
        ticks.now += 40
    ticks.now += 2
    meter.stop()
    ticks.now += 1000
    assert dict(meter.amounts) == {REST: 3, "outer": 50, "inner": 20}
    assert dict(meter.calls) == {"outer": 1, "inner": 1}


@pytest.mark.parametrize("passes", [1, 2])
def test_backward_passes_are_parts_of_their_own_also_when_parts_follow_each_other(passes: int) -> None:
    ticks = Ticks()
    meter = PartMeter(ticks)
    network = meter.measured("network", lambda tensor: Costly.apply(Costly.apply(tensor, ticks), ticks))
    decoder = meter.measured("decoder", lambda tensor: Costly.apply(tensor, ticks))
    inputs = torch.ones(2, requires_grad=True)
    meter.start()
    energy, latents = 0.0, inputs
    for _ in range(passes):
        latents = network(latents)
        energy = energy + decoder(latents).sum()
    (gradient,) = torch.autograd.grad(energy, inputs)
    ticks.now += 7
    with torch.no_grad():
        decoder(latents)
    meter.stop()
    assert gradient.tolist() == [sum(2 * 4**i for i in range(1, passes + 1))] * 2
    assert dict(meter.amounts) == {
        "network": 6 * passes,
        "network" + BACKWARD: 10 * passes,
        "decoder": 3 * passes + 3,
        "decoder" + BACKWARD: 5 * passes,
        REST: 7,
    }


def test_flops_are_those_of_the_formulas_attention_on_the_cpu_included() -> None:
    query, key = torch.rand(2, 3, 5, 8, requires_grad=True), torch.rand(2, 3, 7, 8)
    with flop_counter() as counter:
        attended = nn.functional.scaled_dot_product_attention(query, key, key)
    forward = 2 * (2 * 2 * 3 * 5 * 7 * 8)  # the scores, and their product with the values
    assert counter.get_total_flops() == forward
    with flop_counter() as counter:
        torch.autograd.grad(attended.sum(), query)
    assert counter.get_total_flops() == 2.5 * forward  # the scores again, and four products
    with flop_counter() as counter:
        nn.Linear(8, 4)(torch.rand(6, 8))
        nn.Conv2d(3, 5, 3, padding=1)(torch.rand(2, 3, 10, 10))
    assert counter.get_total_flops() == 2 * 6 * 8 * 4 + 2 * 2 * 5 * 10 * 10 * 3 * 9


@pytest.mark.parametrize(
    ("guidance", "encoder"),
    [
        *((name, "guide") for name in ("direct", "transform", "transform_official", "mpgd")),
        *((name, "generator") for name in ("direct", "mpgd")),  # whose φ runs the network too
    ],
)
def test_measuring_changes_no_image_and_loses_nothing(
    guidance: str, encoder: str, small_run: list[str], image_folder: Path, tmp_path: Path
) -> None:
    given = small_run if encoder == "guide" else [key for key in small_run if not key.startswith("encoder.guide.")]
    overrides = [*given, "dataset=imagefolder", f"dataset.root='{image_folder}'", f"guidance={guidance}"]
    overrides.append(f"encoder={encoder}")
    config = compose("expand", [*overrides, "expansion.factor=1", "generator.gradient_checkpointing=true"])
    data = few_shot_training_set(config, load_dataset(config.dataset).train, config.seed)
    counter = flop_counter()
    meter = PartMeter(lambda: float(counter.get_total_flops()))
    folders = [tmp_path / "plain", tmp_path / "measured"]
    for folder, callbacks in zip(folders, ([], [MeterParts(meter)]), strict=True):
        config.expansion.output_dir = str(folder)
        job = Assembly(config, StageCache(tmp_path / "cache")).job(data, 0)
        job.callbacks = callbacks
        with counter:
            job.run("test")
    plain, measured = (
        {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*.png")} for folder in folders
    )
    assert plain == measured
    assert len(plain) == len(job.plan)
    assert sum(meter.amounts.values()) <= counter.get_total_flops()  # what is prepared takes some too
    parts = {"network", "decoder", "encoder", "decoder" + BACKWARD, "encoder" + BACKWARD}
    assert parts <= {part for part, amount in meter.amounts.items() if amount}
    assert (meter.amounts["network" + BACKWARD] > 0) == (guidance != "mpgd")
    if guidance in ("direct", "mpgd"):
        steps = count_steps(config.generator.num_steps, config.expansion.strength, "floor")
        assert meter.calls["network"] == steps * math.ceil(len(job.plan) / config.expansion.batch_size)
    assert meter.amounts[REST] < 1e-3 * counter.get_total_flops()  # comparing features with group prototypes
