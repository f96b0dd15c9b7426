"""What the sets of the field share: found at a root or on the hub, renamed, counted, completed with carved splits."""

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from distdiff.data.images import DatasetSplits, LabelledImages
from distdiff.data.notes import note
from distdiff.data.sources.files import from_files
from distdiff.data.sources.tables import read_hub
from distdiff.data.splits.carving import TRAIN, complete
from distdiff.errors import UserError
from distdiff.wording import some

OFFICIAL, PUBLISHED = "official", "published"
Parts = dict[str, LabelledImages]


class LayoutError(UserError):
    """A folder is not what the set's authors distribute; whoever asked adds where to get it."""


def named_set(
    rename: Callable[[str], str] = str,
    reduce: Callable[[str, LabelledImages], LabelledImages] = lambda _, images: images,
    joins_validation: Sequence[str] = (),
    published_layout: bool = True,
) -> Callable[[Callable[[Path, str, str], Parts]], Callable[..., DatasetSplits]]:
    """Decorates `read(folder, name, split)`, which knows one set's layouts on disk, as a loader.

    `rename` maps the authors' class names; `reduce` takes its part of a split's images, where the set is a part of
    another; in the splits `joins_validation` the authors' validation images are trained on; `published_layout` says
    that the published code read files that the hub does not have.
    """

    def decorate(read: Callable[[Path, str, str], Parts]) -> Callable[..., DatasetSplits]:
        @functools.wraps(read)
        def load(
            name: str,
            root: str | None,
            split: str,
            url: str,
            hub_id: str | None,
            train_split: str,
            counts: Mapping[str, Mapping[str, int]],
            check_counts: bool,
            validation_fraction: float,
            test_fraction: float,
            split_seed: int,
            **keys: Any,
        ) -> DatasetSplits:
            if root is not None:
                parts = _read_local(read, root, name, split, url, hub_id)
            elif hub_id is None:
                raise UserError(f"dataset.root=null is not allowed: {name} is read from a folder; get it from {url}")
            elif split == PUBLISHED and published_layout:
                raise UserError(f"dataset.split=published needs dataset.root: the hub has no such split; see {url}")
            else:
                joined = f"{train_split}+validation" if split in joins_validation else train_split
                parts = read_hub(name, hub_id=hub_id, train_split=joined, **keys)
            parts = {part: reduce(part, _renamed(images, rename)) for part, images in parts.items()}
            if check_counts:
                _check_counts(root or hub_id, parts, counts.get(split, counts[OFFICIAL]), url)
            # The published code trains on every training image, and has no validation images of its own.
            fraction = 0 if split == PUBLISHED else validation_fraction
            return complete(parts, fraction, test_fraction, split_seed)

        return load

    return decorate


def find(top: Path, *places: str) -> Path:
    """The first of `places` below `top` that there is; raises `LayoutError`."""
    for place in places:
        if (top / place).exists():
            return top / place
    raise LayoutError(f"there is no {' or '.join(places[:2])} in it")


def inside(top: Path, name: str) -> Path:
    """`top`/`name`, where `name` comes from a dataset's own lists; raises `LayoutError` if it leads elsewhere."""
    place = PurePosixPath(name)
    if place.is_absolute() or ".." in place.parts or not place.parts:
        raise LayoutError(f"one of its lists names a file outside of it, {name!r}")
    return top / place


def listed(name: str, class_names: Sequence[str], files: Iterable[tuple[Path, int]]) -> LabelledImages:
    """The files of a list with a label each, keyed by their names; says which are not there."""
    files = list(files)
    present = [(path, label) for path, label in files if path.is_file()]
    if missing := [path for path, _ in files if not path.is_file()]:
        note(name, f"{len(missing):,} of {len(files):,} listed images are not there: {some(missing)}")
    return from_files(
        name, class_names, [label for _, label in present], [path.name for path, _ in present], [p for p, _ in present]
    )


def lines(file: Path) -> list[str]:
    """The lines of a text file that say something."""
    text = file.read_text(encoding="utf-8", errors="replace")
    return [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]


def _read_local(
    read: Callable[[Path, str, str], Parts], root: str, name: str, split: str, url: str, hub_id: str | None
) -> Parts:
    top = Path(root).expanduser()
    where = f"get {name} from {url}" + (f", or dataset.root=null reads {hub_id} from the hub" if hub_id else "")
    if not top.exists():
        raise UserError(f"dataset.root={root}: no such folder; {where}")
    try:
        return read(top, name, split)
    except LayoutError as error:
        layout = "" if split == OFFICIAL else f" (dataset.split={split})"
        raise UserError(f"dataset.root={root}{layout}: {error}; {where}") from None


def _renamed(images: LabelledImages, rename: Callable[[str], str]) -> LabelledImages:
    return replace(images, class_names=tuple(map(rename, images.class_names)))


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
