"""Shows what is in a dataset, and what is wrong with it: distdiff describe dataset=imagefolder dataset.root=<folder>."""

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
from omegaconf import DictConfig

from distdiff.console.progress import console
from distdiff.data.datasets import load_dataset, sentences
from distdiff.data.images import DatasetSplits
from distdiff.data.leaks import find_leaks
from distdiff.data.notes import keeping
from distdiff.data.splits.carving import TEST, TRAIN, VALIDATION
from distdiff.description.duplicates import Duplicates, write_pairs
from distdiff.description.looking import Look, look_over, spread
from distdiff.description.summary import summarize
from distdiff.description.text import print_summary
from distdiff.errors import UserError
from distdiff.expansion.naming import run_name
from distdiff.grids import grid
from distdiff.ranks.world import world
from distdiff.store.names import safe_name
from distdiff.tracking.loggers import log_images, tracked
from distdiff.wording import counted


def describe(config: DictConfig, run_dir: Path) -> None:
    """Prints a summary, and writes `description.json`, `duplicates.csv` and one grid per class into `run_dir`.

    If there are several ranks, only the leading rank does this.
    """
    world().once(lambda: _describe(config, run_dir))


def _describe(config: DictConfig, run_dir: Path) -> None:
    with keeping() as notes:
        loaded = load_dataset(config.dataset)
    splits = {TRAIN: loaded.train, VALIDATION: loaded.validation, TEST: loaded.test}
    prompts = sentences(config.dataset, loaded.train.class_names)
    shown = {TRAIN: spread(loaded.train.labels, config.describe.images_per_class)}
    looks = look_over(splits, shown, config.describe.tile_size, config.dataset.fit)
    read = [look for look in looks if look.reason is None]
    if not read:
        why = "; ".join(
            f"{reason} ({count:,})" for reason, count in Counter(look.reason for look in looks).most_common(3)
        )
        raise UserError(f"dataset {loaded.train.name}: none of its {len(looks):,} images can be read: {why}")
    duplicates = Duplicates(read, config.describe.near_distance, config.describe.near_difference)
    summary = summarize(config, splits, looks, duplicates, _same_files(loaded, read), prompts, notes)
    text = json.dumps(summary, indent=2, ensure_ascii=False)
    (run_dir / "description.json").write_text(f"{text}\n", encoding="utf-8")
    write_pairs(run_dir / "duplicates.csv", duplicates.pairs(), loaded.train.class_names)
    print_summary(summary)
    with tracked(config, run_dir, run_name(config)) as logger:
        sheets = _write_grids(read, loaded.train.class_names, run_dir)
        log_images(logger, "classes", {sheet.stem: sheet for sheet in sheets})
    console.print(f"description  {run_dir}  ({counted(len(sheets), 'grid')}, duplicates.csv)")


def _same_files(loaded: DatasetSplits, read: list[Look]) -> dict[tuple[str, str], int]:
    """By (split, other): how many readable images of `split` `dataset.drop_leaks` knows to be in `other` too."""
    kept = {
        split: getattr(loaded, split).select([look.position for look in read if look.split == split])
        for split in (TRAIN, VALIDATION, TEST)
    }
    return {(leak.split, leak.other): leak.count for leak, _ in find_leaks(replace(loaded, **kept))}


def _write_grids(looks: list[Look], class_names: tuple[str, ...], run_dir: Path) -> list[Path]:
    """Writes one picture per class, a grid of the class's tiles, and returns the pictures' paths."""
    folder, sheets = run_dir / "classes", []
    folder.mkdir(exist_ok=True)
    for label, name in enumerate(class_names):
        tiles = [look.tile for look in looks if look.label == label and look.tile is not None]
        if tiles:
            sheets.append(folder / f"{safe_name(name)}.png")
            grid(tiles, columns=min(len(tiles), max(1, int(np.ceil(np.sqrt(1.5 * len(tiles))))))).save(sheets[-1])
    return sheets
