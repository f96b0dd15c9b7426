"""A batch that does not fit into the device's memory is halved, and the images stay the same."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from on_device import job

from distdiff.expansion.memory import WithinMemory
from distdiff.methods.item import WorkItem
from distdiff.methods.synthesis import Synthesized, Synthesizer

pytestmark = pytest.mark.gpu
RESOLUTION = {"cpu": 32, "cuda": 512}


class Measured(Synthesizer):
    """A sampler that notes the sizes of its batches. On the CPU, it pretends that memory ends at `fits` images."""

    def __init__(self, sampler: Synthesizer, fits: int | None) -> None:
        super().__init__()
        self.sampler, self.fits, self.sizes = sampler, fits, []

    def forward(self, items: Sequence[WorkItem]) -> Synthesized:
        self.sizes.append(len(items))
        made = self.sampler(items)
        if self.fits is not None and len(items) > self.fits:
            raise torch.OutOfMemoryError("pretended: out of memory")
        return made


def peak(device: torch.device, sampler: Synthesizer, items: Sequence[WorkItem]) -> tuple[Synthesized, int]:
    """What a sampler makes, and the bytes that torch held for it at most."""
    if device.type != "cuda":
        return sampler(items), 0
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    return sampler(items), torch.cuda.max_memory_reserved()


@contextmanager
def at_most(device: torch.device, limit: int) -> Iterator[None]:
    """A context in which torch may hold only `limit` bytes of the card's memory."""
    if device.type != "cuda":
        yield
        return
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(limit / torch.cuda.get_device_properties(device).total_memory)
    try:
        yield
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)


def test_a_batch_beyond_the_memory_is_halved_until_it_fits(device: torch.device, tmp_path: Path) -> None:
    size = f"generator.resolution={RESOLUTION[device.type]}"
    made = job(device, tmp_path, "generator=random", size, "guidance=direct")
    sampler = made.synthesizer("test").to(device)
    items = [made.plan[index] for index in range(8)]
    _, of_one = peak(device, sampler, items[:1])
    whole, of_all = peak(device, sampler, items)
    limited = Measured(sampler, fits=3 if device.type == "cpu" else None)
    within = WithinMemory(limited)
    with at_most(device, of_one + (of_all - of_one) // 4):
        found = within(items)
    assert limited.sizes[0] == len(items)
    assert within.limit is not None
    assert limited.sizes[-1] <= within.limit < len(items)
    assert found.columns["prompt"] == whole.columns["prompt"]
    assert (found.images - whole.images).abs().max() <= 1.5 / 255
