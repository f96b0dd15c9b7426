"""What samplers that differ in their guidance have in common: the latents at the first guided step, kept in main memory.

Up to the first guided step, `none` and `direct` at each of its strengths denoise the same latents in the same way. A study
and a sweep over guidance strength therefore make these steps once for each batch.
"""

import hashlib
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field

import torch

from distdiff.generator.denoiser import Denoiser
from distdiff.generator.prompted import PromptedNetwork

ROOM = 512 * 2**20  # bytes; 8,192 images of Stable Diffusion at 512 pixels, 2,048 of XL and 512 of SD 3 at 1,024


@dataclass
class Beginning:
    """A batch's latents (B, C, h, w) at the first guided step, in main memory, and the seconds that it took to get there.

    `user` is the sampler that has made or used it last.
    """

    latents: torch.Tensor
    seconds: float
    user: object = None


@dataclass
class Store:
    """Beginnings by their keys, of at most `room` bytes.

    Rows of a study go through the same batches in the same order. If there is no room for all batches of a row, the first
    ones are kept: a sampler drops what others have left, the oldest first, but nothing that it has made or used itself.
    """

    room: int = ROOM
    kept: OrderedDict[str, Beginning] = field(default_factory=OrderedDict)
    taken: int = 0

    def find(self, key: str, user: object) -> Beginning | None:
        if (found := self.kept.get(key)) is not None:
            found.user = user
            self.kept.move_to_end(key)
        return found

    def keep(self, key: str, beginning: Beginning) -> None:
        """Keeps a beginning if there is room for it, or for it in the place of what other samplers have left."""
        size = beginning.latents.nbytes
        self._drop(key)
        while self.taken + size > self.room:
            oldest = next(iter(self.kept), None)
            if oldest is None or self.kept[oldest].user is beginning.user:
                return
            self._drop(oldest)
        self.kept[key] = beginning
        self.taken += size

    def clear(self) -> None:
        self.kept.clear()
        self.taken = 0

    def _drop(self, key: str) -> None:
        if (dropped := self.kept.pop(key, None)) is not None:
            self.taken -= dropped.latents.nbytes


OF_PROCESS = Store()  # shared by all jobs of this process


class Beginnings:
    """The beginnings of one generator's samplings.

    A batch is found only if all that its denoising depends on is the same to the last bit, for the batch as a whole: the
    last digits of a sample may depend on the others in its batch. What is found is therefore what denoising would give.
    """

    def __init__(self, generator: str = "", store: Store | None = None) -> None:
        """`generator` identifies the generator among those that share the store: all that can change its network's output."""
        self.generator = generator
        self.store = Store() if store is None else store

    def key(self, denoiser: Denoiser, latents: torch.Tensor, steps: range) -> str | None:
        """What identifies the denoising of `latents` (B, C, h, w) through these steps of the schedule.

        None if it may depend on more than latents, prompts and noise schedule: on earlier steps, on random numbers, or on
        what a subclass or another function does in the place of the denoiser or of the network.
        """
        model, scheduler = denoiser.model, denoiser.scheduler
        if type(denoiser) is not Denoiser or type(model) is not PromptedNetwork or not denoiser.is_memoryless:
            return None
        numbers = (steps, model.cfg_scale, model.dtype, latents.device, torch.get_num_threads())
        flags = (torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark)
        found = hashlib.blake2b(f"{self.generator} {numbers} {flags}".encode(), digest_size=16)
        tables = (getattr(scheduler, name, None) for name in ("timesteps", "sigmas"))
        for tensor in (latents, *tables, *model.prompts.tensors()):
            if isinstance(tensor, torch.Tensor):
                found.update(f"{tensor.dtype} {tuple(tensor.shape)}".encode())
                found.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
        return found.hexdigest()

    def find(self, key: str, user: object) -> Beginning | None:
        """The beginning of the batch with this `key`, which the sampler `user` is going to use; None if it is not kept."""
        return self.store.find(key, user)

    def keep(self, key: str, beginning: Beginning) -> None:
        self.store.keep(key, beginning)

    def __iter__(self) -> Iterator[Beginning]:
        return iter(self.store.kept.values())
