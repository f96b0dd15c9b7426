"""What a classifier trains on: original images, or original and expanded ones, as tensors."""

from collections.abc import Iterator, Sequence

import lightning as L
import torch
from torch.utils.data import BatchSampler, DataLoader, Dataset, RandomSampler, Sampler, WeightedRandomSampler

from distdiff.data.images import LabelledImages

CACHE_BYTES = 2 * 2**30  # decoded images kept in memory across epochs


class ImageTensors(Dataset):
    """((3, size, size) in [0, 1], label) of several sets of images, the originals first, decoded once while they fit."""

    def __init__(self, parts: Sequence[LabelledImages], size: int, fit: str) -> None:
        self.where = [(part, position) for part in parts for position in range(len(part))]
        self.num_original = len(parts[0])
        self.size, self.fit = size, fit
        self.room = CACHE_BYTES // (3 * size * size)
        self.decoded: dict[int, torch.Tensor] = {}

    def __len__(self) -> int:
        return len(self.where)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        part, position = self.where[index]
        label = int(part.labels[position])
        if index in self.decoded:
            return self.decoded[index].float() / 255, label
        image = part.tensor(position, self.size, self.fit)
        if len(self.decoded) < self.room:
            self.decoded[index] = (image * 255).round().to(torch.uint8)
        return image, label


class BatchShards(Sampler[list[int]]):
    """Every `num_shards`-th index of each batch, from `shard` on: the batches of one device, dealt to several."""

    def __init__(self, batches: BatchSampler, shard: int, num_shards: int) -> None:
        self.batches, self.shard, self.num_shards = batches, shard, num_shards

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[list[int]]:
        return (batch[self.shard :: self.num_shards] for batch in self.batches)


class ClassificationData(L.LightningDataModule):
    """Training batches for a given number of steps, whatever the number of images, and evaluation batches."""

    def __init__(
        self,
        train: ImageTensors | None,
        evaluation: ImageTensors | None,
        steps: int,
        batch_size: int,
        seed: int,
        synthetic_probability: float | None = None,
        shard: int = 0,
        num_shards: int = 1,
    ) -> None:
        """Of every training batch, `shard` takes each `num_shards`-th image."""
        super().__init__()
        self.shard, self.num_shards = shard, num_shards
        self.train, self.evaluation = train, evaluation
        self.steps, self.batch_size, self.seed = steps, batch_size, seed
        self.synthetic_probability = synthetic_probability

    def train_dataloader(self) -> DataLoader:
        if self.num_shards == 1:
            return DataLoader(self.train, self.batch_size, sampler=self._sampler())
        batches = BatchSampler(self._sampler(), self.batch_size, drop_last=False)
        return DataLoader(self.train, batch_sampler=BatchShards(batches, self.shard, self.num_shards))

    def _sampler(self) -> Sampler[int]:
        # Equal steps for unequal amounts of data: epochs follow each other inside one sampler.
        count, generator = self.steps * self.batch_size, torch.Generator().manual_seed(self.seed)
        synthetic = len(self.train) - self.train.num_original
        if self.synthetic_probability is None or synthetic == 0:
            return RandomSampler(self.train, num_samples=count, generator=generator)
        # Real and synthetic images at a fixed ratio, whatever their numbers (Trabucco et al., 2024, DA-Fusion, sec. 3.4).
        weights = torch.full((len(self.train),), (1 - self.synthetic_probability) / self.train.num_original)
        weights[self.train.num_original :] = self.synthetic_probability / synthetic
        return WeightedRandomSampler(weights, count, generator=generator)

    def test_dataloader(self) -> DataLoader:
        return DataLoader(self.evaluation, batch_size=max(self.batch_size, 100))
