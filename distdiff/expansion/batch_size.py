"""How many images share a batch: `expansion.batch_size`, or as many as the GPU's memory holds.

The batch size changes no image beyond rounding.
"""

from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from omegaconf import DictConfig

from distdiff.console.output import console
from distdiff.expansion.config import AUTO
from distdiff.expansion.memory import ran_out_of_memory
from distdiff.methods.item import WorkItem
from distdiff.methods.synthesis import Synthesizer

LARGEST = 32  # a larger batch is hardly faster, and more is lost if the job is killed
HELD_BACK = 0.1  # the fraction of the memory that is left free: memory is lost to fragments


class Memory(Protocol):
    """The memory of the device on which images are made."""

    def available(self) -> int:
        """The bytes that tensors may take, including those that they take already."""

    def peak(self, call: Callable[[], object]) -> int:
        """Runs `call` and returns the most bytes that tensors took meanwhile."""


class GpuMemory:
    """The memory of a CUDA device, as PyTorch's allocator counts it."""

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def available(self) -> int:
        free, _ = torch.cuda.mem_get_info(self.device)
        return free + torch.cuda.memory_reserved(self.device)

    def peak(self, call: Callable[[], object]) -> int:
        torch.cuda.reset_peak_memory_stats(self.device)
        call()
        return torch.cuda.max_memory_allocated(self.device)


def usual_batch_size(config: DictConfig) -> int:
    """`expansion.batch_size`, or for `auto` the usual batch size of the generator, which needs no look at memory."""
    size = config.expansion.batch_size
    return config.generator.usual_batch_size if size == AUTO else size


def batch_size_for(
    config: DictConfig, synthesizer: Synthesizer, items: Sequence[WorkItem], device: torch.device
) -> int:
    """The number of images in a batch. With `auto` on a GPU, makes images from one and from two of `items`, which may
    share a batch, to see how much memory an image takes; these images are thrown away."""
    if config.expansion.batch_size != AUTO or device.type != "cuda":
        return usual_batch_size(config)
    return largest_batch(synthesizer, items, GpuMemory(device), max(LARGEST, usual_batch_size(config)))


def largest_batch(synthesizer: Synthesizer, items: Sequence[WorkItem], memory: Memory, largest: int) -> int:
    """The largest batch size, at most `largest`, for which memory will probably suffice.

    The peak of memory is taken to grow in proportion to the batch, from the peaks with one and with two of `items`.
    If memory does not suffice for two, returns 1.
    """
    if len(items) < 2:
        return 1
    try:
        one, two = (memory.peak(lambda count=count: synthesizer(items[:count])) for count in (1, 2))
    except (RuntimeError, MemoryError) as error:
        if not ran_out_of_memory(error):
            raise
        return 1
    each, available = max(two - one, 1), memory.available()
    size = max(1, min(largest, int(((1 - HELD_BACK) * available - (one - each)) // each)))
    console.print(f"batches of {size}: an image takes {each / 1e9:.2f} GB of {available / 1e9:.1f} GB of memory")
    return size
