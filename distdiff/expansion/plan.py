"""The list of all images to make, each with its own seed."""

from collections.abc import Callable, Container, Hashable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache, cached_property
from typing import Any

import numpy as np

from distdiff.data.images import LabelledImages, Unreadable
from distdiff.expansion.dealing import Deal, InTurn, Proportional
from distdiff.expansion.strengths import strengths_of
from distdiff.generator.noise import image_seed
from distdiff.methods.base import Method
from distdiff.methods.img2img import Img2Img
from distdiff.methods.item import WorkItem
from distdiff.methods.sources import Sources
from distdiff.store.names import SOURCELESS, name_from_class, safe_name
from distdiff.store.reading import sources_of

CHUNK = 10_000  # file names made at a time


class ExpansionPlan(Sequence[WorkItem]):
    """All copies of all sources, in an order in which a larger `factor` only appends items.

    The plan stores one name for each source and no object for each image: an item is computed when it is accessed.
    """

    def __init__(
        self,
        images: LabelledImages,
        factor: int,
        strength: Any,
        seed: int,
        extension: str = "png",
        balance: bool = False,
        method: Method | None = None,
        chosen: np.ndarray | None = None,
    ) -> None:
        """`strength`: a number, a list with one entry for each copy, or a `{low, high}` range to draw from. A list
        with fewer entries than copies is repeated.

        `balance`: whether sources of small classes get more than `factor` copies, so that all classes have equally many
        originals and copies in total. `method` decides from what each image is made; the default is img2img. `chosen`:
        the positions of the sources that get copies; None means all sources. `chosen` does not change how many copies a
        class gets.
        """
        self.images = images
        self.factor = factor
        self.seed = seed
        self.extension = extension  # of the images' file names
        self.method = Img2Img() if method is None else method
        self.sources = Sources(images)
        self._strengths = strengths_of(strength)
        self._drawn = hasattr(strength, "keys")  # whether strengths are drawn from a range
        self._folders = [safe_name(name) for name in images.class_names]
        self._names = [safe_name(key) for key in images.keys]
        self._chosen = np.arange(len(images)) if chosen is None else np.sort(chosen)
        self._deal = self._dealt(balance, chosen is not None)

    def __len__(self) -> int:
        return self._deal.count

    def __getitem__(self, index: int) -> WorkItem:
        if not 0 <= index < len(self):
            raise IndexError(index)
        copies, positions = self._places(np.array([index]))
        return self._item(int(copies[0]), int(positions[0]))

    @property
    def words(self) -> str:
        """A phrase that says how many copies are made, in how many classes."""
        return f"{self._deal.words} in {len(self.images.class_names)} classes"

    @property
    def unreadable(self) -> tuple[Unreadable, ...]:
        """The sources that cannot be read and therefore get no copies."""
        return self.images.unreadable

    @cached_property
    def labels(self) -> np.ndarray:
        """The class of each item's source, (len,) int64."""
        return self.images.labels[self.source_numbers(np.arange(len(self)))]

    @property
    def counts(self) -> np.ndarray:
        """How many images each class gets, (classes,)."""
        return np.bincount(self.labels, minlength=len(self.images.class_names))

    def file_names(self) -> Iterator[str]:
        """Every item's path inside the expanded dataset's directory, in order."""
        for start in range(0, len(self), CHUNK):
            copies, positions = self._places(np.arange(start, min(start + CHUNK, len(self))))
            for copy, position in zip(copies.tolist(), positions.tolist(), strict=True):
                yield (
                    self._file_name(copy, position) if self.method.keeps_class else self._item(copy, position).file_name
                )

    def missing(self, done: Container[str]) -> np.ndarray:
        """The indices of the items whose file names are not in `done`, (m,) int64."""
        indices = (index for index, name in enumerate(self.file_names()) if name not in done)
        return np.fromiter(indices, dtype=np.int64)

    def source_numbers(self, indices: np.ndarray) -> np.ndarray:
        """The position of the source of each item at `indices`, (m,); copies of one source share a position."""
        return self._places(indices)[1]

    def batches(self, indices: np.ndarray, batch_size: int, group: Callable[[float], Hashable]) -> list[np.ndarray]:
        """Divides the items at `indices` into batches; all items of a batch have the same value of `group(strength)`.

        Items with the same value stay in order. If the method makes the copies of a source together, a batch holds
        copies of one source only, and at most as many as the method's `group_size`.
        """
        copies, positions = self._places(indices)
        keys = self._groups(copies, positions, group)
        if self.method.group_size is not None:
            batch_size = self.method.group_size
            keys = list(zip(keys, positions.tolist(), strict=True))
        numbers: dict[Hashable, int] = {}
        of = np.array([numbers.setdefault(key, len(numbers)) for key in keys], dtype=np.int64)
        order = np.argsort(of, kind="stable")
        members = np.split(indices[order], np.cumsum(np.bincount(of, minlength=len(numbers)))[:-1])
        parts = (part for same in members for part in np.split(same, range(batch_size, len(same), batch_size)))
        return [part for part in parts if len(part)]

    def factor_with(self, rows: Sequence[Mapping[str, Any]]) -> int:
        """The smallest factor, not below the plan's own, whose plan contains the images of these metadata rows."""
        if not rows:
            return self.factor
        copies = np.array([row["copy"] for row in rows])
        place_of = {int(position): place for place, position in enumerate(self._chosen)}
        if self.method.num_sources == 0:
            labels = np.array([self.images.class_names.index(row["class_name"]) for row in rows])
            copies, places = self._deal.numbered(labels, copies)
        else:
            position_of = {self.sources.name(position): position for position in place_of}
            places = np.array([place_of[position_of[sources_of(row)[0]]] for row in rows])
        return max(self.factor, int(self._deal.least_factor(copies, places).max()))

    def _places(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The copy numbers and source positions of items.

        If the method uses no sources, an item's copy number is its index among the items of its class.
        """
        copies, places = self._deal.places(indices)
        if self.method.num_sources == 0:
            copies = self._deal.numbers(copies, places)
        return copies, self._chosen[places]

    def _item(self, copy: int, position: int) -> WorkItem:
        label = self.sources.labels[position]
        class_name, source = self.images.class_names[label], self.images.keys[position]
        item = WorkItem(
            position=position,
            copy=copy,
            seed=image_seed(self.seed, class_name, source, copy),
            strength=self._strength(copy, position),
            label=label,
            class_name=class_name,
            source=source,
            file_name=self._file_name(copy, position),
            sources=(self.sources.name(position),),
        )
        if self.method.num_sources == 0:
            seed = image_seed(self.seed, class_name, "", copy)
            return replace(item, position=None, source=None, seed=seed, sources=())
        return self._labelled(self._with_partners(item))

    def _with_partners(self, item: WorkItem) -> WorkItem:
        partners = self.method.partners(item, self.sources, self.seed)
        return replace(item, partners=partners, sources=(*item.sources, *map(self.sources.name, partners)))

    def _labelled(self, item: WorkItem) -> WorkItem:
        soft = self.method.label(item, self.sources, self.seed)
        item = replace(item, soft_label=soft)
        if not soft or soft[0][0] == item.label:
            return item
        label, class_name = soft[0][0], self.images.class_names[soft[0][0]]
        name = f"{self._folders[label]}/{name_from_class(item.class_name, item.source)}"
        file_name = f"{name}__{item.copy:04d}.{self.extension}"
        return replace(item, label=label, class_name=class_name, source_class=item.class_name, file_name=file_name)

    def _file_name(self, copy: int, position: int) -> str:
        """The path of a copy in the folder of its source's class."""
        name = SOURCELESS if self.method.num_sources == 0 else self._names[position]
        return f"{self._folders[self.sources.labels[position]]}/{name}__{copy:04d}.{self.extension}"

    def _groups(self, copies: np.ndarray, positions: np.ndarray, group: Callable[[float], Hashable]) -> list[Hashable]:
        """The value of `group` for each item's strength."""
        if self._drawn:
            places = zip(copies.tolist(), positions.tolist(), strict=True)
            return [group(self._strength(copy, position)) for copy, position in places]
        known = cache(lambda turn, shots: group(self.method.strength_for(float(self._strengths[turn]), shots)))
        turns, shots = copies % len(self._strengths), self._shots[positions]
        return [known(*each) for each in zip(turns.tolist(), shots.tolist(), strict=True)]

    def _strength(self, copy: int, position: int) -> float | None:
        """The strength of a copy.

        This is the number, the list's entry for the copy, or a draw from the range with the copy's own seed.
        """
        shots = int(self._shots[position])
        if not self._drawn:
            return self.method.strength_for(float(self._strengths[copy % len(self._strengths)]), shots)
        class_name = self.images.class_names[self.sources.labels[position]]
        low, high = self._strengths
        seed = image_seed(self.seed, class_name, self.images.keys[position], copy, "strength")
        return self.method.strength_for(float(low + (high - low) * (seed * 2.0**-63)), shots)

    @cached_property
    def _shots(self) -> np.ndarray:
        """How many real images each image's class has, (n,)."""
        labels = self.images.labels
        return np.bincount(labels, minlength=len(self.images.class_names))[labels]

    def _dealt(self, balance: bool, some: bool) -> Deal:
        labels, all_labels = self.images.labels[self._chosen], self.images.labels
        if not balance and not some:
            return Proportional(labels, self.factor)
        sizes = np.bincount(all_labels, minlength=len(self.images.class_names))[np.unique(labels)]
        deal = InTurn.balanced if balance else InTurn.equal_counts
        return deal(labels, self._ranks(), sizes, self.factor)

    def _ranks(self) -> np.ndarray:
        """A random number for each chosen source, (n,).

        These numbers, not the order of names, decide which sources get extra copies.
        """
        class_names = self.images.class_names
        seeds = (
            image_seed(self.seed, class_names[self.sources.labels[p]], self.images.keys[p], "source", "deal")
            for p in self._chosen.tolist()
        )
        return np.fromiter(seeds, dtype=np.int64, count=len(self._chosen))
