"""Sources and images that each method made of them, with what a judge sees in these images."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute
from PIL import Image

from distdiff.data.images import LabelledImages
from distdiff.expansion.naming import PLUS
from distdiff.grids import captioned, grid
from distdiff.metrics.measuring import Measurer
from distdiff.store.columns import METADATA
from distdiff.store.directory import ExpandedDirectory
from distdiff.store.reading import sources_of
from distdiff.store.tables import read_table
from distdiff.study.results import StudyResults
from distdiff.study.runs import MethodResult
from distdiff.wording import counted

COPIES, MAX_CLASSES, MAX_ROWS, SIDE = 2, 10, 12, 64


@dataclass(frozen=True)
class Sample:
    """A generated image and its row of metadata. The rest is None if no judge has looked at it.

    `predicted` is the class that the judge predicts. `nearest` is the real training image whose features are nearest,
    `nearest_class` its class, and `distance` the Euclidean distance to it in the judge's features.
    """

    image: Image.Image
    entry: Mapping[str, Any]
    predicted: str | None = None
    nearest: Image.Image | None = None
    nearest_class: str | None = None
    distance: float | None = None

    @property
    def class_name(self) -> str:
        return self.entry["class_name"]


@dataclass(frozen=True)
class Samples:
    """A source for each of the classes `class_names`, and below them lines of samples with a title each.

    A line has a sample for each class, or None where one failed or was not planned. `total_classes` and `total_rows`
    count what there is, also beyond what is shown.
    """

    class_names: Sequence[str]
    sources: Sequence[Image.Image]
    lines: Sequence[tuple[str, Sequence[Sample | None]]]
    size: int
    total_classes: int
    shown_rows: int
    total_rows: int

    @property
    def titles(self) -> list[str]:
        """The titles of all lines of the grid, from the top."""
        return ["source", *(title for title, _ in self.lines)]

    @property
    def has_looks(self) -> bool:
        """Whether a judge has looked at the samples."""
        return any(sample is not None and sample.nearest is not None for _, line in self.lines for sample in line)

    @property
    def without_source(self) -> bool:
        """Whether one of the samples was made of no source, as of a prompt alone."""
        return any(sample is not None and not sources_of(sample.entry) for _, line in self.lines for sample in line)

    @property
    def rule(self) -> str:
        """Which samples are shown, in words."""
        classes = f"the first {len(self.class_names)} of {counted(self.total_classes, 'class')}"
        rows = f"{self.shown_rows} of {counted(self.total_rows, 'row')} with images of its own"
        every_class = len(self.class_names) == self.total_classes
        every_row = self.shown_rows == self.total_rows
        words = [words for words, every in ((classes, every_class), (rows, every_row)) if not every]
        of_each = f"Of the first data seed: each class's first source, and the first {COPIES} images that each row made of it."
        if self.without_source:
            of_each += " Images that were made of no source stand under their class."
        return f"{of_each} Shown are {' and '.join(words)}." if words else of_each

    def draw(self, path: Path) -> None:
        """Writes the images as one picture, with the names of classes and the titles of lines on it."""
        blank = Image.new("RGB", (self.size, self.size), "white")
        made = [[blank if sample is None else sample.image for sample in line] for _, line in self.lines]
        images = [image for row in (self.sources, *made) for image in row]
        sheet = grid(images, columns=len(self.class_names), side=max(SIDE, self.size))
        captioned(sheet, self.class_names, self.titles).save(path)


def collect(
    results: StudyResults, originals: LabelledImages, size: int, fit: str, measurer: Measurer | None = None
) -> Samples:
    """The first source of each of the first classes, and what the rows of a study made of these under the first data seed.

    Rows whose images are not on this machine are left out. The judge of `measurer` looks at the images.
    """
    _, first = np.unique(originals.labels, return_index=True)
    positions = first[:MAX_CLASSES].tolist()
    names = [originals.class_names[originals.labels[position]] for position in positions]
    wanted = {
        f"{name}/{originals.keys[p]}": place for place, (name, p) in enumerate(zip(names, positions, strict=True))
    }
    rows = _with_images(results.rows)
    shown = _shown_rows(rows, results.chosen)
    lines: list[tuple[str, list[Sample | None]]] = []
    for row in shown:
        lines += _lines(row, [originals.keys[p] for p in positions], names, wanted)
    return Samples(
        class_names=names,
        sources=[originals.square(position, size, fit) for position in positions],
        lines=lines if measurer is None else _looked_at(lines, originals.class_names, measurer, size, fit),
        size=size,
        total_classes=len(first),
        shown_rows=len(shown),
        total_rows=len(rows),
    )


def _with_images(rows: Sequence[MethodResult]) -> list[MethodResult]:
    """The rows whose images are there. Rows with other factors, and rows with other settings, share a directory."""
    of_directory: dict[str, MethodResult] = {}
    for row in rows:
        if row.runs[0].expanded is not None:
            of_directory.setdefault(row.runs[0].expanded, row)
    return list(of_directory.values())


def _shown_rows(rows: Sequence[MethodResult], chosen: str) -> list[MethodResult]:
    """At most `MAX_ROWS` rows, in their order: the first ones, and the one that the job's keys choose."""
    first = [row for row in rows if row.method == chosen] + [row for row in rows if row.method != chosen]
    kept = {row.method for row in first[:MAX_ROWS]}
    return [row for row in rows if row.method in kept]


def _lines(
    row: MethodResult, keys: Sequence[str], names: Sequence[str], wanted: Mapping[str, int]
) -> list[tuple[str, list[Sample | None]]]:
    """The lines of a row: the first copies or, with a selection, the first kept images. A failed copy leaves a gap."""
    selected, directory = PLUS in row.method, Path(row.runs[0].expanded)
    made = _made(directory, keys, selected)
    read = ExpandedDirectory(directory).images(made)
    of_column: dict[int, list[int]] = {column: [] for column in range(len(names))}
    for index, entry in enumerate(made):
        if (column := _column(entry, names, wanted)) is not None:
            of_column[column].append(index)
    lines: list[tuple[str, list[Sample | None]]] = []
    for number in range(COPIES):
        line = {
            column: Sample(read(indices[0]), made[indices[0]])
            for column, found in of_column.items()
            # Of images without a source, several of a class may have the same number.
            if (indices := found[number : number + 1] if selected else [i for i in found if made[i]["copy"] == number])
        }
        if line:
            words = f"kept {number + 1}" if selected else f"copy {number}"
            lines.append((f"{row.method if selected else row.base}, {words}", list(map(line.get, range(len(names))))))
    return lines


def _made(directory: Path, keys: Sequence[str], selected: bool) -> list[dict[str, Any]]:
    """The metadata rows of the images that may be shown, sorted by copy number.

    Without a selection, these are the rows of the first copies of all sources. With a selection, they are the rows of
    the kept images that were made from one of the sources `keys` or from no source.
    """
    first = pyarrow.compute.field("copy") < COPIES
    source = pyarrow.compute.field("source")
    condition = source.isin(keys) | source.is_null() if selected else first
    rows = read_table(directory / METADATA, filters=condition).to_pylist()
    return sorted(rows, key=lambda row: row["copy"])


def _column(entry: Mapping[str, Any], names: Sequence[str], wanted: Mapping[str, int]) -> int | None:
    """The index of the grid column that shows an expanded image, or None if no column shows the image.

    An image is shown in the column of its source or, if it was made from no source, in the column of its class. `entry`
    is the image's metadata row, and `wanted` maps each source in the grid to its column.
    """
    sources = sources_of(entry)
    if sources:
        return wanted.get(sources[0])
    return names.index(entry["class_name"]) if entry["class_name"] in names else None


def _looked_at(
    lines: Sequence[tuple[str, Sequence[Sample | None]]],
    class_names: Sequence[str],
    measurer: Measurer,
    size: int,
    fit: str,
) -> list[tuple[str, list[Sample | None]]]:
    """The same lines, with what the judge sees in each sample."""
    samples = [sample for _, line in lines for sample in line if sample is not None]
    if not samples:
        return list(lines)
    images = LabelledImages(
        name="samples",
        class_names=tuple(class_names),
        labels=np.array([class_names.index(sample.class_name) for sample in samples], dtype=np.int64),
        keys=tuple(map(str, range(len(samples)))),
        read=lambda index: samples[index].image,
        indices=np.arange(len(samples)),
    )
    found, real = measurer.look(images), measurer.images
    looked_at = iter(
        [
            replace(
                sample,
                predicted=class_names[int(predicted)],
                nearest=real.square(int(nearest), size, fit),
                nearest_class=real.class_names[int(real.labels[nearest])],
                distance=float(distance),
            )
            for sample, predicted, nearest, distance in zip(
                samples, found.predicted, found.nearest, found.distance, strict=True
            )
        ]
    )
    return [(title, [None if sample is None else next(looked_at) for sample in line]) for title, line in lines]
