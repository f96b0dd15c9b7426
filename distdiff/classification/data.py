"""The images on which a classifier trains, original and expanded, as tensors."""

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import lightning as L
import numpy as np
import torch
from torch.nn import functional as F
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    RandomSampler,
    Sampler,
    SequentialSampler,
    WeightedRandomSampler,
)

from distdiff.data.images import LabelledImages
from distdiff.data.pixels import to_floats
from distdiff.data.reading.prefetch import threads

MEMORY = 2 * 2**30  # bytes; limits how many decoded images are kept in memory if they are not on disk
AHEAD = 2  # number of batches that are decoded while the classifier trains on an earlier batch


class ImageTensors(Dataset):
    """Pairs of an image (3, size, size) in [0, 1] and its target, from several sets of images.

    The original images are the first set. A target is a label; if any image has a soft label, all targets are the
    probabilities of the classes, (classes,) float32. An image is read from the image cache or from memory, or decoded
    by the threads that prepare the next batches, or else decoded on demand. Its pixels are the same in all cases.
    If `features` (n, D) is set, the features of an image take the place of its pixels, which are not read.
    """

    features: torch.Tensor | None = None

    def __init__(self, parts: Sequence[LabelledImages], size: int, fit: str, samples: int = 0) -> None:
        """`samples` is how many images will be drawn; if there are more images than draws, none is kept on disk."""
        self.where = [(number, position) for number, part in enumerate(parts) for position in range(len(part))]
        self.labels = [part.labels.tolist() for part in parts]
        self.soft = [part.soft for part in parts]
        self.num_classes = len(parts[0].class_names)
        self.is_soft = any(soft is not None for soft in self.soft)
        self.num_original = len(parts[0])
        self.num_workers = parts[0].options.num_workers
        self.squares = [part.squares(size, fit, keep=samples >= len(self.where)) for part in parts]
        self.room = MEMORY // (3 * size * size)
        self.decoded: dict[int, np.ndarray] = {}
        self.pending: dict[int, Future[np.ndarray]] = {}

    def __len__(self) -> int:
        return len(self.where)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int | torch.Tensor]:
        return self._input(index), self._target(*self.where[index])

    def prepare(self, indices: Sequence[int], pool: ThreadPoolExecutor) -> None:
        """Lets `pool` decode the images at `indices`, except those that are on disk or in memory already."""
        if self.features is not None:
            return
        for index in indices:
            number, position = self.where[index]
            squares = self.squares[number]
            if not (squares.stored or index in self.decoded or index in self.pending):
                self.pending[index] = pool.submit(squares.decode, position)

    def _input(self, index: int) -> torch.Tensor:
        return to_floats(self._square(index)) if self.features is None else self.features[index]

    def _target(self, number: int, position: int) -> int | torch.Tensor:
        label = self.labels[number][position]
        if not self.is_soft:
            return label
        soft = self.soft[number]
        if soft is not None:
            return soft.target(position, self.num_classes)
        return F.one_hot(torch.tensor(label), self.num_classes).float()

    def _square(self, index: int) -> np.ndarray:
        number, position = self.where[index]
        if self.squares[number].stored:
            return self.squares[number][position]
        if index in self.decoded:
            return self.decoded[index]
        future = self.pending.pop(index, None)
        square = self.squares[number].decode(position) if future is None else future.result()
        if len(self.decoded) < self.room:
            self.decoded[index] = square
        return square


class AheadBatches(Sampler[list[int]]):
    """The batches of a sampler. Several threads decode the images of a batch before the batch is needed."""

    def __init__(self, batches: Sampler[list[int]], images: ImageTensors) -> None:
        self.batches, self.images = batches, images

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[list[int]]:
        waiting: deque[list[int]] = deque()
        with threads(self.images.num_workers) as pool:
            try:
                for batch in self.batches:
                    self.images.prepare(batch, pool)
                    waiting.append(batch)
                    if len(waiting) > AHEAD:
                        yield waiting.popleft()
                yield from waiting
            finally:
                self.images.pending.clear()  # drops decoded images that were never used


class BatchShards(Sampler[list[int]]):
    """The part of each batch that one device receives: every `num_shards`-th index from position `shard` on."""

    def __init__(self, batches: BatchSampler, shard: int, num_shards: int) -> None:
        self.batches, self.shard, self.num_shards = batches, shard, num_shards

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[list[int]]:
        return (batch[self.shard :: self.num_shards] for batch in self.batches)


class ClassificationData(L.LightningDataModule):
    """Batches for training and for evaluation.

    The number of training steps does not depend on the number of images.
    """

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
        """Of each training batch, only every `num_shards`-th image is loaded, from position `shard` on."""
        super().__init__()
        self.shard, self.num_shards = shard, num_shards
        self.train, self.evaluation = train, evaluation
        self.steps, self.batch_size, self.seed = steps, batch_size, seed
        self.synthetic_probability = synthetic_probability

    def train_dataloader(self) -> DataLoader:
        batches: Sampler[list[int]] = BatchSampler(self._sampler(), self.batch_size, drop_last=False)
        if self.num_shards > 1:
            batches = BatchShards(batches, self.shard, self.num_shards)
        return DataLoader(self.train, batch_sampler=AheadBatches(batches, self.train))

    def _sampler(self) -> Sampler[int]:
        # One sampler spans all epochs, so that the number of steps does not depend on the amount of data.
        count, generator = self.steps * self.batch_size, torch.Generator().manual_seed(self.seed)
        synthetic = len(self.train) - self.train.num_original
        if self.synthetic_probability is None or synthetic == 0:
            return RandomSampler(self.train, num_samples=count, generator=generator)
        # Draws real and synthetic images at a fixed ratio, which does not depend on the number of images of each kind
        # (Trabucco et al., 2024, DA-Fusion, section 3.4).
        weights = torch.full((len(self.train),), (1 - self.synthetic_probability) / self.train.num_original)
        weights[self.train.num_original :] = self.synthetic_probability / synthetic
        return WeightedRandomSampler(weights, count, generator=generator)

    def test_dataloader(self) -> DataLoader:
        batches = BatchSampler(SequentialSampler(self.evaluation), max(self.batch_size, 100), drop_last=False)
        return DataLoader(self.evaluation, batch_sampler=AheadBatches(batches, self.evaluation))
