"""What samplings that differ in their guidance have in common: the latents with which guidance begins, kept in memory.

Up to the first guided step, `none`, `direct` at each of its strengths and most other guidance methods denoise the same
latents in the same way. A study and a sweep over guidance strength therefore denoise each batch so far only once.
"""

import hashlib
from collections import OrderedDict
from dataclasses import dataclass

import torch

from distdiff.generator.denoiser import Denoiser
from distdiff.generator.prompted import PromptedNetwork

ROOM = 512 * 2**20  # bytes of main memory; 8,192 images of Stable Diffusion at 512 pixels


@dataclass(frozen=True)
class Beginning:
    """A batch's latents (B, C, h, w) at the first guided step, in main memory, and the seconds that it took to get there."""

    latents: torch.Tensor
    seconds: float


class Beginnings:
    """The beginnings of one generator's samplings, of which those that were used last are kept.

    A batch is found only if all that the denoising depends on is the same to the last bit, for the batch as a whole: a
    sample's last digits may depend on the others in its batch. What is found is therefore what denoising would give.
    """

    def __init__(self, room: int = ROOM) -> None:
        """`room` is the number of bytes that the kept latents may take."""
        self.room = room
        self._taken = 0
        self._kept: OrderedDict[str, Beginning] = OrderedDict()

    @staticmethod
    def key(denoiser: Denoiser, latents: torch.Tensor, steps: range) -> str | None:
        """What identifies the denoising of `latents` (B, C, h, w) through these steps of the schedule by one generator.

        None if more may matter than these latents, the prompts and the noise schedule: earlier steps, random numbers, or a
        function that a method has put in the network's place.
        """
        if not denoiser.is_memoryless or type(denoiser.model) is not PromptedNetwork:
            return None
        scheduler = denoiser.scheduler
        tables = [getattr(scheduler, name, None) for name in ("timesteps", "sigmas")]
        found = hashlib.blake2b(f"{steps} {torch.get_num_threads()} {latents.device}".encode(), digest_size=16)
        for tensor in (latents, *tables, *denoiser.model.prompts.tensors()):
            if isinstance(tensor, torch.Tensor):
                found.update(f"{tensor.dtype}{tuple(tensor.shape)}".encode())
                found.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
        return found.hexdigest()

    def find(self, key: str) -> Beginning | None:
        if key in self._kept:
            self._kept.move_to_end(key)
        return self._kept.get(key)

    def keep(self, key: str, beginning: Beginning) -> None:
        """Keeps a beginning, and drops those that have not been used for longest if there is too little room for all."""
        self._kept[key] = beginning
        self._taken += beginning.latents.nbytes
        while self._taken > self.room:
            self._taken -= self._kept.popitem(last=False)[1].latents.nbytes

    def __len__(self) -> int:
        return len(self._kept)


_OF_LAST: dict[str, Beginnings] = {}  # those of the generator that this process has used last


def beginnings_of(generator: str) -> Beginnings:
    """The beginnings of the generator with this identity, which outlive a job; those of other generators are dropped."""
    if generator not in _OF_LAST:
        _OF_LAST.clear()
        _OF_LAST[generator] = Beginnings()
    return _OF_LAST[generator]
