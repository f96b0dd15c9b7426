"""A picture of sources and of the images that each method made from these sources."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow.compute
from PIL import Image

from distdiff.data.images import LabelledImages
from distdiff.expansion.naming import PLUS
from distdiff.grids import captioned, grid
from distdiff.store.columns import METADATA
from distdiff.store.directory import ExpandedDirectory
from distdiff.store.reading import sources_of
from distdiff.store.tables import read_table
from distdiff.study.results import StudyResults

COPIES, MAX_CLASSES, SIDE = 2, 10, 64


def sample_grid(results: StudyResults, originals: LabelledImages, size: int, fit: str, path: Path) -> list[str]:
    """Writes a grid with one column per class, and returns the titles of the rows.

    A column shows the first source of its class and, below, the first copies that each method made. Class names and row
    titles are written on the picture.
    """
    positions = [
        int((originals.labels == label).argmax()) for label in range(min(len(originals.class_names), MAX_CLASSES))
    ]
    rows = [[originals.square(position, size, fit) for position in positions]]
    shown: set[str] = set()  # rows with other factors, and rows with other settings, share a directory
    titles, blank = ["source"], Image.new("RGB", (size, size), "white")  # for failed or unplanned copies
    wanted = {
        f"{originals.class_names[originals.labels[p]]}/{originals.keys[p]}": column
        for column, p in enumerate(positions)
    }
    for row in results.rows:
        directory = row.runs[0].expanded
        if directory is None or directory in shown:
            continue
        shown.add(directory)
        selected = PLUS in row.method
        made = _shown(Path(directory), [originals.keys[p] for p in positions], selected)
        read = ExpandedDirectory(Path(directory)).images(made)
        of_column: dict[int, list[int]] = {column: [] for column in range(len(positions))}
        for index, entry in enumerate(made):
            if (column := _column(entry, wanted, originals, positions)) is not None:
                of_column[column].append(index)
        for number in range(COPIES):
            # With a selection, show the first kept images. Otherwise, show the first copies.
            # A failed copy leaves a gap there.
            line = {
                column: read(index)
                for column, indices in of_column.items()
                for place, index in enumerate(indices)
                if (place if selected else made[index]["copy"]) == number
            }
            if line:
                rows.append([line.get(column, blank) for column in range(len(positions))])
                titles.append(
                    f"{row.method if selected else row.base}, {f'kept {number + 1}' if selected else f'copy {number}'}"
                )
    sheet = grid([image for row in rows for image in row], columns=len(positions), side=max(SIDE, size))
    captioned(sheet, [originals.class_names[originals.labels[p]] for p in positions], titles).save(path)
    return titles


def _shown(directory: Path, keys: Sequence[str], selected: bool) -> list[dict[str, Any]]:
    """The metadata rows of the images that may be shown, sorted by copy number.

    Without a selection, these are the rows of the first copies of all sources. With a selection, they are the rows of
    the kept images that were made from one of the sources `keys` or from no source.
    """
    first = pyarrow.compute.field("copy") < COPIES
    source = pyarrow.compute.field("source")
    condition = source.isin(keys) | source.is_null() if selected else first
    rows = read_table(directory / METADATA, filters=condition).to_pylist()
    return sorted(rows, key=lambda row: row["copy"])


def _column(
    entry: Mapping[str, Any], wanted: Mapping[str, int], originals: LabelledImages, positions: Sequence[int]
) -> int | None:
    """The index of the grid column that shows an expanded image, or None if no column shows the image.

    An image is shown in the column of its source or, if it was made from no source, in the column of its class. `entry`
    is the image's metadata row, and `wanted` maps each source in the grid to its column.
    """
    sources = sources_of(entry)
    if sources:
        return wanted.get(sources[0])
    names = [originals.class_names[originals.labels[position]] for position in positions]
    return names.index(entry["class_name"]) if entry["class_name"] in names else None
