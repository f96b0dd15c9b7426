"""Divides a batch into parts that fit into memory."""

from collections.abc import Sequence

import torch
from lightning.pytorch.utilities.memory import garbage_collection_cuda, is_oom_error

from distdiff.console.progress import announce
from distdiff.errors import UserError
from distdiff.methods.item import WorkItem
from distdiff.methods.synthesis import Synthesized, Synthesizer

# Parts of the error messages of libraries that torch calls; `is_oom_error` knows the errors of torch's own allocators.
_SAID = ("CUBLAS_STATUS_ALLOC_FAILED", "CUDNN_STATUS_ALLOC_FAILED", "not enough memory", "out of memory")


class WithinMemory:
    """Calls a synthesizer on at most `limit` items at a time.

    Whenever memory runs out, `limit` is halved for this call and all later ones.
    """

    def __init__(self, synthesizer: Synthesizer, together: bool = False) -> None:
        """`together`: whether the images of a batch depend on each other; if so, a batch is never divided."""
        self.synthesizer = synthesizer
        self.together = together
        self.limit: int | None = None  # no limit

    def __call__(self, items: Sequence[WorkItem]) -> Synthesized:
        """Returns the results of all items.

        Raises `UserError` if there is not enough memory for one item, or for a batch that must not be divided.
        """
        made: list[Synthesized] = []
        done = 0
        while done < len(items):
            part = items[done : done + (self.limit or len(items))]
            result = self._try(part)
            if result is None:
                self._halve(len(part))
            else:
                made.append(result)
                done += len(part)
        return made[0] if len(made) == 1 else joined(made)

    def _try(self, part: Sequence[WorkItem]) -> Synthesized | None:
        try:
            return self.synthesizer(part)
        except (RuntimeError, MemoryError) as error:
            if not ran_out_of_memory(error):
                raise
        return None  # outside of `except`: the failed attempt's tensors are freed only once its exception is gone

    def _halve(self, size: int) -> None:
        garbage_collection_cuda()
        if self.together:
            raise UserError(
                f"out of memory with {size} images that are made together: set a smaller method.group_size "
                "(or guidance.group_size), "
                "generator.gradient_checkpointing=true, a smaller generator.resolution, or generator.dtype=float16"
            )
        if size == 1:
            raise UserError(
                "out of memory with a single image at a time: set generator.gradient_checkpointing=true, a smaller "
                "generator.resolution, or generator.dtype=float16 (expansion.batch_size was lowered to 1 already)"
            )
        self.limit = size // 2
        announce(f"out of memory with {size} images at a time; going on with {self.limit}")


def ran_out_of_memory(error: BaseException) -> bool:
    """Whether the error says that torch (on any device) or Python could not allocate memory."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)) or is_oom_error(error):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _SAID)


def joined(parts: Sequence[Synthesized]) -> Synthesized:
    """Joins the parts of a batch, in order, into one batch."""
    columns = {name: [value for part in parts for value in part.columns[name]] for name in parts[0].columns}
    return Synthesized(torch.cat([part.images for part in parts]), columns)
