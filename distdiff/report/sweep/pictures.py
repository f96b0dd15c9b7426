"""Images that several strengths made from the same sources and the same noise, side by side."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.compute
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from PIL import Image

from distdiff.data.datasets import load_dataset
from distdiff.errors import UserError
from distdiff.report.page import data_uri
from distdiff.report.sweep.choosing import Choice
from distdiff.report.sweep.settings import RHO, Setting, Sweep
from distdiff.store.columns import METADATA
from distdiff.store.directory import ExpandedDirectory
from distdiff.store.reading import sources_of
from distdiff.store.tables import read_table

SOURCES, MOST_COLUMNS = 6, 8
LARGEST = 128  # pixels a side in the page
CONFIG = "config.yaml"
COLUMNS = ["file_name", "class_name", "source", "copy"]

Key = tuple[str, str, int]  # class, source and copy: what the noise of an image is drawn from, besides the data seed


@dataclass(frozen=True)
class Column:
    """The name of a strength, and its images as data URIs, one for each row."""

    name: str
    images: list[str]


@dataclass(frozen=True)
class Pictures:
    """One row for each source, and one column for each strength, the unguided one first. `from_sources` is False if images
    are made without a source image."""

    rows: list[str]
    columns: list[Column]
    seed: int
    from_sources: bool


def pictures(sweep: Sweep, chosen: Sequence[Choice]) -> Pictures | None:
    """Images of the settings on the axis, next to the chosen one if there are two axes; None if there are none in common.

    A directory that is gone or damaged is left out.
    """
    shown = _shown(sweep, chosen)
    unit = next((unit for unit in sweep.units if sum(unit in setting.images for setting in shown) > 0), None)
    if unit is None:
        return None
    of_settings = {_name(sweep, setting): setting.images[unit] for setting in shown if unit in setting.images}
    wanted: dict[str, Path] = {}
    unguided = next((each.unguided_images[unit] for each in shown if unit in each.unguided_images), None)
    if unguided is not None:
        same = [name for name, path in of_settings.items() if path.resolve() == unguided.resolve()]
        wanted[", ".join(["unguided", *same])] = unguided  # ρ = 0 may be the very dataset of the row `none`
        of_settings = {name: path for name, path in of_settings.items() if name not in same}
    wanted |= of_settings
    tables = {name: rows for name, path in wanted.items() if (rows := _rows(path))}
    common = set.intersection(*map(set, tables.values())) if tables else set()
    keys = _spread(common)
    if not keys:
        return None
    columns = [Column(name, images) for name, rows in tables.items() if (images := _images(wanted[name], rows, keys))]
    if not columns:
        return None
    from_sources = any(source for _, source, _ in keys)
    sources = _sources(Path(shown[0].jobs[0].job.directory), keys) if from_sources else None
    columns = [*([Column("source", sources)] if sources else []), *columns]
    return Pictures([_row_name(key) for key in keys], columns, unit[1], from_sources)


def _shown(sweep: Sweep, chosen: Sequence[Choice]) -> list[Setting]:
    """The settings that stand on one line with the chosen one: at most `MOST_COLUMNS`, evenly taken, and the chosen one."""
    if not sweep.settings:
        return []
    centre = next((each for each in sweep.settings if each.images), sweep.settings[0])
    if chosen:
        centre = chosen[0].chosen.sharing[0] if chosen[0].chosen.is_unguided else chosen[0].chosen
    fixed = [key for key in sweep.keys if key not in sweep.axes[:1]] if sweep.axes else list(sweep.problems)
    line = [each for each in sweep.settings if all(each.given[key] == centre.given[key] for key in fixed)]
    step = -(-len(line) // MOST_COLUMNS)
    return [each for place, each in enumerate(line) if place % step == 0 or each is centre][: MOST_COLUMNS + 1]


def _name(sweep: Sweep, setting: Setting) -> str:
    keys = sweep.axes[:1] or sweep.keys
    return (
        ", ".join(f"{'ρ' if key == RHO else key.rpartition('.')[2]} = {setting.given[key]}" for key in keys) or "images"
    )


def _rows(directory: Path) -> dict[Key, dict[str, Any]]:
    """The metadata of the first copies by their keys; empty if the directory has none."""
    with suppress(UserError, OSError, pyarrow.ArrowException, KeyError):
        table = read_table(directory / METADATA)
        lowest = pyarrow.compute.min(table["copy"]).as_py()
        rows = table.filter(pyarrow.compute.equal(table["copy"], lowest)).to_pylist()
        return {(row["class_name"], "".join(sources_of(row)[:1]), row["copy"]): row for row in rows}
    return {}


def _spread(keys: set[Key]) -> list[Key]:
    """`SOURCES` of the keys, of as many classes as possible."""
    of_class: dict[str, list[Key]] = {}
    for key in sorted(keys):
        of_class.setdefault(key[0], []).append(key)
    rounds = [group[number] for number in range(SOURCES) for group in of_class.values() if number < len(group)]
    return sorted(rounds[:SOURCES])


def _images(directory: Path, rows: dict[Key, dict[str, Any]], keys: Sequence[Key]) -> list[str]:
    chosen = [rows[key] for key in keys]
    with suppress(UserError, OSError, ValueError, KeyError):
        read = ExpandedDirectory(directory).images(chosen)
        return [_uri(read(index)) for index in range(len(chosen))]
    return []


def _sources(directory: Path, keys: Sequence[Key]) -> list[str]:
    """The real images, as squares; empty if the dataset cannot be loaded now."""
    with suppress(UserError, OSError, OmegaConfBaseException, ValueError, KeyError):
        config = OmegaConf.load(directory / CONFIG)
        train = load_dataset(config.dataset).train
        places = {name: place for place, name in enumerate(train.names)}
        size, fit = config.generator.resolution, config.dataset.fit
        return [_uri(train.square(places[source], size, fit)) for _, source, _ in keys]
    return []


def _row_name(key: Key) -> str:
    class_name, source, _ = key
    return f"{class_name} ({source.removeprefix(f'{class_name}/')})" if source else class_name


def _uri(image: Image.Image) -> str:
    small = image.convert("RGB")
    small.thumbnail((LARGEST, LARGEST))
    return data_uri(small, "PNG")
