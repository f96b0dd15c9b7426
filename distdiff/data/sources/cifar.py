"""CIFAR100-Subset: 10,000 training images of CIFAR-100 (Krizhevsky, 2009).

The binary version of CIFAR-100 is read, so that nothing is unpickled.
"""

from pathlib import Path

import numpy as np
from PIL import Image

from distdiff.data.images import LabelledImages
from distdiff.data.sources.files import from_class_folders
from distdiff.data.sources.named import (
    PUBLISHED,
    LayoutError,
    NamedSet,
    Parts,
    find,
    lines,
    refuse_placeholder,
)
from distdiff.data.splits.carving import TEST, TRAIN

SIDE = 32
RECORD = 2 + 3 * SIDE * SIDE  # bytes of an image: the coarse label, the fine label, and the red, green and blue planes
PER_CLASS = 100


class Cifar100Subset(NamedSet):
    """Reads CIFAR-100 from `cifar-100-binary/`.

    For the published split, the 10,000 training images are in class folders instead.
    """

    def read(self, top: Path, name: str, split: str) -> Parts:
        binary = find(top, "cifar-100-binary/test.bin", "test.bin").parent
        class_names = lines(find(binary, "fine_label_names.txt"))
        test = _read(binary / "test.bin", name, class_names)
        if split != PUBLISHED:
            return {TRAIN: _read(find(binary, "train.bin"), name, class_names), TEST: test}
        folder = find(top, f"CIFAR_10000/{class_names[0]}", class_names[0]).parent
        return {TRAIN: from_class_folders(name, folder, class_names), TEST: test}

    def reduce(self, part: str, images: LabelledImages) -> LabelledImages:
        """Keeps all test images, and the first 100 training images of every class in the order of the file."""
        if part != TRAIN:
            return images
        positions = [np.flatnonzero(images.labels == label)[:PER_CLASS] for label in range(len(images.class_names))]
        return images.select(np.sort(np.concatenate(positions)))


def _read(file: Path, name: str, class_names: list[str]) -> LabelledImages:
    refuse_placeholder(file)
    content = np.fromfile(file, dtype=np.uint8)
    if len(content) % RECORD:
        raise LayoutError(f"its {file.name} has {len(content):,} bytes, no multiple of {RECORD:,}")
    records = content.reshape(-1, RECORD)
    labels = records[:, 1].astype(np.int64)
    if len(labels) and labels.max() >= len(class_names):
        raise LayoutError(f"its {file.name} has a label {labels.max()}, beyond the {len(class_names)} class names")

    def read(index: int) -> Image.Image:
        return Image.fromarray(records[index, 2:].reshape(3, SIDE, SIDE).transpose(1, 2, 0).copy())

    return LabelledImages(
        name=name,
        class_names=tuple(class_names),
        labels=labels,
        keys=tuple(f"{index:05d}" for index in range(len(labels))),
        read=read,
        indices=np.arange(len(labels)),
    )
