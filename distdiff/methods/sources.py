"""The classes and names of the real images, for methods that plan new images."""

from collections.abc import Sequence

import numpy as np

from distdiff.data.images import LabelledImages


class Sources:
    """Looks up real images by class; a position is an image's index among all real images."""

    def __init__(self, images: LabelledImages) -> None:
        self.class_names: tuple[str, ...] = images.class_names
        self.keys: Sequence[str] = images.keys
        self.labels: list[int] = images.labels.tolist()
        self._order = np.argsort(images.labels, kind="stable")  # positions, class by class
        sizes = np.bincount(images.labels, minlength=len(self.class_names))
        self._starts = np.concatenate([[0], np.cumsum(sizes)])

    def __len__(self) -> int:
        return len(self.labels)

    def of_class(self, label: int) -> np.ndarray:
        """The positions of a class's images, (n_c,)."""
        return self._order[self._starts[label] : self._starts[label + 1]]

    def num_outside(self, label: int) -> int:
        """How many images the other classes have in total."""
        return len(self) - len(self.of_class(label))

    def outside(self, label: int, number: int) -> int:
        """The position of the `number`-th image, counted from 0, among the images of all other classes."""
        start, end = self._starts[label], self._starts[label + 1]
        return int(self._order[number if number < start else number + (end - start)])

    def name(self, position: int) -> str:
        """The name of an image in the metadata: `class/key`."""
        return f"{self.class_names[self.labels[position]]}/{self.keys[position]}"
