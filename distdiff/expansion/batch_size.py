"""How many images share a batch: `expansion.batch_size`, or as many as the GPU's memory holds.

Neither the batch size nor gradient checkpointing, which is decided with it, changes an image beyond rounding.
"""

from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from omegaconf import DictConfig

from distdiff.console.output import console
from distdiff.expansion.config import AUTO
from distdiff.expansion.memory import ran_out_of_memory
from distdiff.generator.latent_diffusion import LatentDiffusion
from distdiff.methods.item import WorkItem
from distdiff.methods.synthesis import Synthesizer

LARGEST = 32  # a larger batch is hardly faster, and more is lost if the job is killed
ENOUGH = 8  # from this batch size on, larger batches save less time than checkpointing costs
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
    """The number of images in a batch.

    On a GPU, `expansion.batch_size=auto` and `generator.gradient_checkpointing=auto` are decided here, by making images
    from one and from two of `items`, which may share a batch. These images are thrown away. On other devices, the former
    means the usual batch size, and the latter stays on.
    """
    if device.type != "cuda":
        return usual_batch_size(config)
    synthesizer.to(device)  # Lightning moves it there only when the expansion begins
    return settled_batch_size(config, synthesizer, items, GpuMemory(device))


def settled_batch_size(config: DictConfig, synthesizer: Synthesizer, items: Sequence[WorkItem], memory: Memory) -> int:
    """As `batch_size_for` on a GPU. Gradients are checkpointed if otherwise too few images would fit into memory: fewer
    than `ENOUGH`, or than the `expansion.batch_size` that was typed."""
    typed = None if config.expansion.batch_size == AUTO else config.expansion.batch_size
    generator: LatentDiffusion | None = getattr(synthesizer, "generator", None)
    may_checkpoint = generator is not None and config.generator.gradient_checkpointing == AUTO
    largest = typed or max(LARGEST, usual_batch_size(config))
    if typed is not None and not may_checkpoint:
        return typed
    if may_checkpoint:
        generator.checkpoint_gradients(False)
    size, words = largest_batch(synthesizer, items, memory, largest), ""
    if may_checkpoint and size < (typed or ENOUGH):
        generator.checkpoint_gradients(True)
        size = typed or largest_batch(synthesizer, items, memory, largest)
        words = ", with gradients checkpointed"
    console.print(f"batches of {size} fit into the {memory.available() / 1e9:.0f} GB of memory{words}")
    return size


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
    each = max(two - one, 1)
    return max(1, min(largest, int(((1 - HELD_BACK) * memory.available() - (one - each)) // each)))
