"""The images on which a classifier trains, original and expanded, as tensors."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import Any

import lightning as L
import numpy as np
import torch
from torch.nn import functional as F
from torch.utils.data import BatchSampler, DataLoader, Dataset, Sampler, SequentialSampler

from distdiff.classification.config import CONCATENATE
from distdiff.classification.sampling import image_sampler
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

    def __init__(
        self,
        parts: Sequence[LabelledImages],
        size: int,
        fit: str,
        samples: int = 0,
        centre: int | None = None,
        synthetic_weight: float | None = None,
    ) -> None:
        """`samples` is how many images will be drawn; if there are more images than draws, none is kept on disk.

        If `centre` is given, only the middle square of so many pixels a side is used. If `synthetic_weight` is given,
        each item has a third element: this weight for a synthetic image, and 1 for an original one.
        """
        self.parts = tuple(parts)
        self.size = size
        self.side = size if centre is None else centre
        self.edge = (size - self.side) // 2
        self.synthetic_weight = synthetic_weight
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

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int | torch.Tensor] | tuple[torch.Tensor, ...]:
        pair = self._input(index), self._target(*self.where[index])
        if self.synthetic_weight is None:
            return pair
        return *pair, torch.tensor(1.0 if index < self.num_original else self.synthetic_weight)

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
        if self.features is not None:
            return self.features[index]
        shown = slice(self.edge, self.edge + self.side)
        return to_floats(self._square(index)[shown, shown])

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


class BatchStream(Sampler[list[int]]):
    """The batches of a training, from the first one each time that Lightning asks, at the beginning of its epochs.

    The first time, `skipped` batches are left out, which a training that is resumed has seen.
    """

    def __init__(self, draw: Callable[[], Sampler[list[int]]], images: ImageTensors) -> None:
        """`draw` returns a sampler of the same batches each time."""
        self.draw, self.images = draw, images
        self.skipped = 0
        self._length = len(draw())

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[list[int]]:
        skipped, self.skipped = self.skipped, 0
        return iter(AheadBatches(_Later(self.draw(), skipped), self.images))


class _Later(Sampler[list[int]]):
    """The batches of a sampler without the first `skipped`."""

    def __init__(self, batches: Sampler[list[int]], skipped: int) -> None:
        self.batches, self.skipped = batches, skipped

    def __iter__(self) -> Iterator[list[int]]:
        return islice(self.batches, self.skipped, None)


class TrainingBatches(DataLoader):
    """A loader of training batches with a position, which Lightning keeps in its checkpoints.

    `repeated` is the number of batches of each of Lightning's epochs if the training has several epochs, else 0.
    """

    def __init__(self, images: ImageTensors, stream: BatchStream, repeated: int) -> None:
        super().__init__(images, batch_sampler=stream)
        self.repeated = repeated
        self.given = 0

    def __iter__(self) -> Iterator[Any]:
        self.given = self.batch_sampler.skipped
        batches = super().__iter__()
        # Beginning to iterate draws from torch's generator, which a resumed training does not do at each epoch.
        self.generator = torch.Generator()
        return self._counted(batches)

    def _counted(self, batches: Iterator[Any]) -> Iterator[Any]:
        for batch in batches:
            self.given += 1
            yield batch

    def state_dict(self) -> dict[str, int]:
        return {"given": self.given}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.batch_sampler.skipped = state["given"] % self.repeated if self.repeated else state["given"]


class ClassificationData(L.LightningDataModule):
    """Batches for training and for evaluation.

    The number of training batches does not depend on the number of images.
    """

    def __init__(
        self,
        train: ImageTensors | None,
        evaluation: ImageTensors | None,
        steps: int,
        batch_size: int,
        seed: int,
        mixing: str = CONCATENATE,
        synthetic_probability: float | None = None,
        shard: int = 0,
        num_shards: int = 1,
        repeated: int = 0,
    ) -> None:
        """Of each training batch, only every `num_shards`-th image is loaded, from position `shard` on.

        `mixing` and `synthetic_probability` are those of a recipe. If `repeated` is not 0, the training is made of the
        first `repeated` batches again and again.
        """
        super().__init__()
        self.repeated = repeated
        self.shard, self.num_shards = shard, num_shards
        self.train, self.evaluation = train, evaluation
        self.steps, self.batch_size, self.seed = steps, batch_size, seed
        self.mixing, self.synthetic_probability = mixing, synthetic_probability

    def train_dataloader(self) -> DataLoader:
        def drawn() -> Sampler[list[int]]:
            batches = BatchSampler(self._sampler(), self.batch_size, drop_last=False)
            return BatchShards(batches, self.shard, self.num_shards) if self.num_shards > 1 else batches

        return TrainingBatches(self.train, BatchStream(drawn, self.train), self.repeated)

    def _sampler(self) -> Sampler[int]:
        # One sampler spans all epochs, so that the number of steps does not depend on the amount of data.
        count, parts = self.steps * self.batch_size, self.train.parts
        return image_sampler(parts, count, self.seed, self.mixing, self.synthetic_probability)

    def test_dataloader(self) -> DataLoader:
        batches = BatchSampler(SequentialSampler(self.evaluation), max(self.batch_size, 100), drop_last=False)
        # With a generator of its own, the loader draws no number that the training would draw.
        ahead = AheadBatches(batches, self.evaluation)
        return DataLoader(self.evaluation, batch_sampler=ahead, generator=torch.Generator())

    def val_dataloader(self) -> DataLoader | list[DataLoader]:
        return [] if self.evaluation is None else self.test_dataloader()
