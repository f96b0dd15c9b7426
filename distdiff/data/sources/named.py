"""Code for all benchmark datasets. It finds files or the hub's copy, renames and counts classes, and carves splits."""

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Literal

import numpy as np

from distdiff.data.config import TestFraction, ValidationFraction
from distdiff.data.images import DatasetSplits, LabelledImages
from distdiff.data.notes import note
from distdiff.data.roots import exists, no_copy_at, where_to_get
from distdiff.data.sources.files import from_files
from distdiff.data.sources.tables import Wanted, read_hub
from distdiff.data.splits.carving import TRAIN, VALIDATION, complete
from distdiff.errors import UserError
from distdiff.links import followed
from distdiff.placeholders import placeholder
from distdiff.texts import UnreadableFile, read_text
from distdiff.wording import some

AUTHORS, PUBLISHED = "authors", "published"
Parts = dict[str, LabelledImages]


class LayoutError(UserError):
    """Raised for a folder that does not have the layout that the authors distribute.

    `NamedSet.load` adds to the message where to get the dataset.
    """


class NamedSet:
    """One benchmark dataset; a subclass knows its layouts on disk.

    - `joins_validation`: the values of `split` for which the validation images are added to the training images.
    - `published_layout`: whether the published split needs files that the hub does not have.
    """

    joins_validation: tuple[str, ...] = ()
    published_layout = True

    def read(self, top: Path, name: str, split: str) -> Parts:
        """The images below the folder `top`, with the authors' class names.

        Raises `LayoutError` if `top` does not have the expected layout.
        """
        raise NotImplementedError

    def rename(self, class_name: str) -> str:
        """The class name to use in place of the authors' `class_name`."""
        return class_name

    def reduce(self, part: str, images: LabelledImages) -> LabelledImages:
        """Keeps only the images of this dataset, for a dataset that is a subset of a larger one.

        `part` is the split of `images`.
        """
        return images

    @classmethod
    def load(
        cls,
        *,
        root: str | None,
        split: Literal["authors", "published"],
        url: str,
        counts: dict,
        check_counts: bool,
        validation_fraction: ValidationFraction,
        name: str,
        split_seed: int,
        test_fraction: TestFraction = 0.2,
        hub_id: str | None = None,
        hub_config: str | None = None,
        hub_data_dir: str | None = None,
        revision: str | None = None,
        image_column: str | None = None,
        label_column: str | None = None,
        train_split: str = "train",
        validation_split: str = "validation",
        test_split: str = "test",
    ) -> DatasetSplits:
        """The dataset from the folder `root`, or from the hub if `root` is None.

        Missing validation or test splits are carved from the training images. `counts[split]` describes a complete
        copy: the number of classes, and the number of images in each part. If `counts` has no entry for `published`,
        the counts of `authors` are used. `hub_id` and the arguments after it describe the hub's copy. Raises
        `UserError` if there is no copy, if its layout is not the expected one, or if `check_counts` is true and the
        copy is incomplete.
        """
        the_set = cls()
        if root is not None:
            parts = the_set._read_local(root, name, split, where_to_get(name, url, hub_id))
        elif hub_id is None:
            raise UserError(f"dataset.root=null is not allowed: {name} is read from a folder; get it from {url}")
        elif split == PUBLISHED and cls.published_layout:
            raise UserError(f"dataset.split=published needs dataset.root: the hub has no such split; see {url}")
        else:
            train = f"{train_split}+{VALIDATION}" if split in cls.joins_validation else train_split
            wanted = Wanted(train, validation_split, test_split, image_column, label_column)
            parts = read_hub(name, wanted, hub_id, hub_config, hub_data_dir, revision)
        parts = {part: the_set.reduce(part, the_set._renamed(images)) for part, images in parts.items()}
        if check_counts:
            _check_counts(root or hub_id, parts, counts.get(split, counts[AUTHORS]), url)
        # The published code trains on every training image, and has no validation images of its own.
        fraction = 0 if split == PUBLISHED else validation_fraction
        return complete(parts, fraction, test_fraction, split_seed)

    def _read_local(self, root: str, name: str, split: str, where: str) -> Parts:
        top = followed(Path(root).expanduser())
        if not exists(top):
            raise UserError(no_copy_at(root, where))
        try:
            return self.read(top, name, split)
        except OSError as error:
            raise UserError(f"dataset.root={root}: cannot read {error.filename} ({error.strerror})") from None
        except LayoutError as error:
            layout = "" if split == AUTHORS else f" (dataset.split={split})"
            raise UserError(f"dataset.root={root}{layout}: {error}; {where}") from None

    def _renamed(self, images: LabelledImages) -> LabelledImages:
        return replace(images, class_names=tuple(map(self.rename, images.class_names)))


def find(top: Path, *places: str) -> Path:
    """The path of the first of `places` that exists below `top`. Raises `LayoutError` if none of them exists."""
    for place in places:
        if os.path.lexists(top / place):  # reading a broken link says what it is
            return top / place
    raise LayoutError(f"there is no {' or '.join(places[:2])} in it")


def inside(top: Path, name: str) -> Path:
    """The path `top`/`name`, where `name` was read from one of the dataset's own lists of files.

    Raises `LayoutError` if the path leads out of `top`.
    """
    place = PurePosixPath(name)
    if place.is_absolute() or ".." in place.parts or not place.parts:
        raise LayoutError(f"one of its lists names a file outside of it, {name!r}")
    return top / place


def refuse_placeholder(file: Path) -> None:
    """Raises `LayoutError` for a file that stands in the place of another, such as a pointer or a web page."""
    if (instead := placeholder(file)) is not None:
        raise LayoutError(f"its {file.name} cannot be read ({instead})")


def listed(name: str, class_names: Sequence[str], files: Iterable[tuple[Path, int]]) -> LabelledImages:
    """Labelled images from pairs (path, label). The key of an image is its file name.

    Missing files are left out and noted.
    """
    files = list(files)
    present = [(path, label) for path, label in files if path.is_file()]
    if missing := [path for path, _ in files if not path.is_file()]:
        note(name, f"{len(missing):,} of {len(files):,} listed images are not there: {some(missing)}")
    return from_files(
        name, class_names, [label for _, label in present], [path.name for path, _ in present], [p for p, _ in present]
    )


def lines(file: Path) -> list[str]:
    """The lines of a text file that are neither empty nor comments. Raises `LayoutError` if it cannot be read."""
    try:
        text = read_text(file)
    except UnreadableFile as error:
        raise LayoutError(f"its {file.name} cannot be read ({error.reason})") from None
    return [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]


def _check_counts(source: str, parts: Parts, expected: Mapping[str, int], url: str) -> None:
    found = {"classes": len(np.unique(parts[TRAIN].labels))} | {split: len(part) for split, part in parts.items()}
    if any(found.get(what, 0) != count for what, count in expected.items()):
        told = [
            ", ".join(f"{counts.get(what, 0):,} {what if what == 'classes' else f'{what} images'}" for what in expected)
            for counts in (expected, found)
        ]
        raise UserError(
            f"dataset {parts[TRAIN].name} has {told[0]}; {source} has {told[1]}: get all of it from {url}, or "
            f"dataset.check_counts=false takes what is there"
        )
