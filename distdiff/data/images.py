"""A labelled set of images, read on demand, and its three splits."""

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from PIL import Image

from distdiff.console.bar import with_progress
from distdiff.data.cache.examined import Examined, Seen, Stamp
from distdiff.data.cache.squares import Squares, to_floats
from distdiff.data.reading.decoding import READING, UnreadableImage, is_transparent, read_image, read_square
from distdiff.data.reading.fit import fit_image
from distdiff.data.reading.options import ReadingOptions
from distdiff.data.reading.prefetch import prefetched
from distdiff.errors import first_line


@dataclass(frozen=True)
class Unreadable:
    """An image that was left out."""

    key: str
    class_name: str
    reason: str


@dataclass(frozen=True)
class LabelledImages:
    """Images with a label each: files, or what `read` gives.

    `keys[i]` names the image inside its class and is unique there; `indices` selects and orders the source's images.
    """

    name: str
    class_names: tuple[str, ...]
    labels: np.ndarray  # (n,) int64
    keys: tuple[str, ...]
    read: Callable[[int], Image.Image] | None  # image i of the source as RGB, where that is no file
    indices: np.ndarray  # (n,) int64
    unreadable: tuple[Unreadable, ...] = ()  # what `without` left out
    file: Callable[[int], Path | str | BinaryIO] | None = None  # of image i: a path, or a stream
    groups: np.ndarray | None = None  # (n,) int64: those of one number, all of one class, are never in two splits
    called: Callable[[int], str] | None = None  # what errors call a stream
    listing: str | None = None  # what the source is called, to remember what was found out about its files
    options: ReadingOptions = field(default_factory=ReadingOptions)
    identity: str | None = None  # of this very content, where it is known

    def __len__(self) -> int:
        return len(self.indices)

    def image(self, position: int) -> Image.Image:
        """The image at `position`, RGB, in its own size."""
        index = int(self.indices[position])
        if self.file is None:
            return self.read(index)
        file = self.file(index)
        return read_image(file, self._called(index, file), self.options.background)

    def square(self, position: int, size: int, fit: str) -> Image.Image:
        """The image at `position` fitted to a square of `size`, RGB; a large JPEG is decoded no larger than needed."""
        index = int(self.indices[position])
        if self.file is None:
            return fit_image(self.read(index), size, fit)
        file = self.file(index)
        return read_square(file, size, fit, self._called(index, file), self.options.background)

    def tensor(self, position: int, size: int, fit: str) -> torch.Tensor:
        """The image at `position` fitted to a square: (3, size, size) float32 in [0, 1]."""
        return to_tensor(self.square(position, size, fit))

    def tensors(self, size: int, fit: str) -> torch.Tensor:
        """All images: (n, 3, size, size) float32 in [0, 1]."""
        return torch.stack(list(self.stream(size, fit)))

    def stream(self, size: int, fit: str) -> Iterator[torch.Tensor]:
        """All images one after the other, as `tensor` gives them, made ahead by several threads; once, so none is kept."""
        return map(to_floats, self.squares(size, fit, keep=False))

    def squares(self, size: int, fit: str, keep: bool = True) -> Squares:
        """All images as squares; kept in the image cache, or with `keep=False` only read from it."""
        return Squares(self, size, fit, keep)

    def shares_source(self, other: "LabelledImages") -> bool:
        """Whether both are parts of one source, as after carving."""
        return self.read is other.read and self.file is other.file

    def _called(self, index: int, file: Path | str | BinaryIO) -> str | None:
        return None if self.called is None or isinstance(file, (str, Path)) else self.called(index)

    def select(self, positions: Sequence[int] | np.ndarray) -> "LabelledImages":
        """The images at `positions`, in that order."""
        positions = np.asarray(positions, dtype=np.int64)
        return replace(
            self,
            labels=self.labels[positions],
            keys=tuple(self.keys[p] for p in positions),
            indices=self.indices[positions],
            groups=None if self.groups is None else self.groups[positions],
            identity=None,
        )

    def examine(self) -> tuple[dict[int, str], str]:
        """Why images cannot be read, by position, and the fingerprint of all others.

        That is a hash of labels, keys, class names and content: equal exactly where these are. The content is a file's
        bytes, and the background where that shows through; pixels where there is no file.
        """
        digest = hashlib.sha256(repr(self.class_names).encode())
        if self.file is not None:
            digest.update(f"|files {READING}|".encode())
        lost = {}
        for position, content in enumerate(self._contents()):
            if isinstance(content, UnreadableImage):
                lost[position] = content.reason
                continue
            digest.update(f"{self.keys[position]}|{self.labels[position]}|".encode())
            digest.update(content)
        return lost, digest.hexdigest()[:16]

    def _contents(self) -> Iterator[bytes | UnreadableImage]:
        """What identifies each image's content, or why it cannot be read."""
        workers = self.options.num_workers
        if self.file is None:
            yield from prefetched(self._pixels, range(len(self)), workers)
            return
        memory = Examined(self.options.cache_dir, self.listing)
        found = [self._known(position, memory) for position in range(len(self))]
        unknown = [position for position, seen in enumerate(found) if seen is None]
        made = prefetched(lambda position: self._look(position, memory), unknown, workers)
        for position, seen in zip(with_progress(unknown, "images: examine"), made, strict=True):
            found[position] = seen
        memory.save()
        for seen in found:
            if isinstance(seen, UnreadableImage):
                yield seen
            else:
                yield f"{seen.content}|{self.options.background if seen.transparent else ''}|".encode()

    def _pixels(self, position: int) -> bytes | UnreadableImage:
        try:
            image = self.image(position)
        except UnreadableImage as error:
            return error
        return f"{image.size}|".encode() + image.tobytes()

    def _known(self, position: int, memory: Examined) -> Seen | None:
        """What is remembered of a path; a stream would have to be read to be known."""
        if self.called is not None:
            return None
        try:
            file = self.file(int(self.indices[position]))
            return memory.file(os.path.abspath(file), Stamp.of(file)) if isinstance(file, (str, Path)) else None
        except (OSError, UnreadableImage):
            return None

    def _look(self, position: int, memory: Examined) -> Seen | UnreadableImage:
        """Hashes a file, and decodes it unless these bytes are known."""
        index = int(self.indices[position])
        try:
            file = self.file(index)
            name = self._called(index, file)
            if isinstance(file, (str, Path)):
                return self._look_at_path(file, memory)
            content = hashlib.sha256(file.read()).hexdigest()
            file.seek(0)
            seen = memory.content(content) or Seen(content, is_transparent(file, name))
        except UnreadableImage as error:
            return error
        memory.note(seen)
        return seen

    def _look_at_path(self, path: Path | str, memory: Examined) -> Seen:
        try:
            stamp = Stamp.of(path)
            with open(path, "rb") as file:
                content = hashlib.file_digest(file, "sha256").hexdigest()
            seen = memory.content(content) or Seen(content, is_transparent(path))
            unchanged = Stamp.of(path) == stamp
        except OSError as error:
            raise UnreadableImage(str(path), error.strerror or first_line(error)) from None
        memory.note(seen, *((os.path.abspath(path), stamp) if unchanged else ()))
        return seen

    def without(self, lost: Mapping[int, str]) -> "LabelledImages":
        """All but those at the positions `lost`, which `unreadable` notes with their reasons."""
        if not lost:
            return self
        noted = (
            Unreadable(self.keys[position], self.class_names[self.labels[position]], reason)
            for position, reason in lost.items()
        )
        left = self.select([position for position in range(len(self)) if position not in lost])
        return replace(left, unreadable=(*self.unreadable, *noted))

    def fingerprint(self) -> str:
        """A hash of the content of all that can be read."""
        return self.examine()[1]


@dataclass(frozen=True)
class DatasetSplits:
    """`train` is the pool that few-shot draws come from; nothing of `validation` or `test` is in it."""

    train: LabelledImages
    validation: LabelledImages
    test: LabelledImages


def draw_few_shot(
    pool: LabelledImages, per_class: int | None, seed: int, passed_over: Sequence[Unreadable] = ()
) -> LabelledImages:
    """Draws `per_class` images of every class without replacement (all of a smaller class), by `seed` alone.

    The next of the draw takes the place of one that is `passed_over`.
    """
    if per_class is None:
        return pool
    chosen, without = [], {(image.class_name, image.key) for image in passed_over}
    for label, name in enumerate(pool.class_names):
        positions = np.flatnonzero(pool.labels == label)
        generator = np.random.default_rng([seed, label])
        order = [p for p in generator.permutation(positions) if (name, pool.keys[p]) not in without]
        chosen.extend(sorted(order[:per_class]))
    return pool.select(chosen)


def to_tensor(image: Image.Image) -> torch.Tensor:
    """RGB PIL image -> (3, H, W) float32 in [0, 1]."""
    return to_floats(np.asarray(image, dtype=np.uint8).copy())


def to_image(pixels: torch.Tensor) -> Image.Image:
    """(3, H, W) in [0, 1] -> RGB PIL image, rounded to the nearest of 255 levels."""
    levels = pixels.detach().clamp(0, 1).mul(255).round().to(torch.uint8).cpu()
    return Image.fromarray(levels.permute(1, 2, 0).numpy())
