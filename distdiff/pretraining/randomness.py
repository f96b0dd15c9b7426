"""Randomness that belongs to a training step, so that a pretraining that goes on repeats what an uninterrupted one does."""

from collections.abc import Callable, Iterator

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from torch.utils.data import Sampler

from distdiff.seeds import seed_of

BATCHES, STEPS, OTHER = range(3)  # what random numbers are drawn for


class RandomBatches(Sampler[list[int]]):
    """Batches of `batch_size` of `num_images` images, drawn with replacement; a batch depends on its step alone.

    The batches begin with the step that `first` returns.
    """

    def __init__(
        self, num_images: int, batch_size: int, steps: int, seed: tuple[int, ...], first: Callable[[], int]
    ) -> None:
        self.num_images, self.batch_size, self.steps, self.seed, self.first = (
            num_images,
            batch_size,
            steps,
            seed,
            first,
        )

    def __len__(self) -> int:
        return self.steps

    def __iter__(self) -> Iterator[list[int]]:
        for step in range(self.first(), self.steps):
            generator = torch.Generator().manual_seed(seed_of(*self.seed, BATCHES, step))
            yield torch.randint(self.num_images, (self.batch_size,), generator=generator).tolist()


class SeedSteps(Callback):
    """Seeds torch before each training step, by the step's number."""

    def __init__(self, seed: tuple[int, ...]) -> None:
        self.seed = seed

    def on_train_batch_start(self, trainer: L.Trainer, *_: object) -> None:
        torch.manual_seed(seed_of(*self.seed, STEPS, trainer.global_step))
