"""An expanded dataset's directory: whose it is, what is in it, and how it is finished and read."""

import contextlib
import json
import os
import shutil
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet
from datasets import ClassLabel, Dataset, Features, Value
from PIL import Image

from distdiff.caching.fingerprint import fingerprint, plain
from distdiff.data.images import LabelledImages, Unreadable
from distdiff.data.reading import read_image
from distdiff.errors import UserError
from distdiff.expansion.failures import FAILURE_JOURNALS, list_failures, read_failures
from distdiff.expansion.plan import ExpansionPlan
from distdiff.expansion.share import Share, forget_shares
from distdiff.expansion.writer import ASIDES, JOURNALS, read_journals
from distdiff.locking import held
from distdiff.writing import on_disk

MANIFEST, METADATA, CLASSES, LOCK = "manifest.json", "metadata.parquet", "classes.json", ".lock"
BEGUN = (CLASSES, MANIFEST, f".{CLASSES}.part", f".{MANIFEST}.part")  # what another process may just be writing
PACKAGES = ("distdiff", "torch", "diffusers", "transformers", "lightning", "scikit-learn")
OPTIONAL_COLUMNS = {
    "energy_before": Value("float64"),
    "energy_after": Value("float64"),
    "group": Value("int64"),
    "gradient_finite": Value("bool"),  # False: went on without guidance
}


class ExpandedDirectory:
    """`<dir>/<class>/<source key>__<copy>.png` with `metadata.parquet`, `classes.json`, `manifest.json` and a card."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @on_disk
    def claim(self, ingredients: Mapping[str, Any], class_names: tuple[str, ...]) -> None:
        """Makes the directory, or checks that what is there has the same ingredients; raises `UserError` if not."""
        if self.manifest() is None:
            if self.path.is_dir() and any(
                entry.name not in BEGUN and not entry.name.startswith(LOCK) for entry in self.path.iterdir()
            ):
                raise UserError(
                    f"expansion.output_dir={self.path} is not allowed: it holds other files; give an empty or a new one"
                )
            self.path.mkdir(parents=True, exist_ok=True)
            with self.locked():
                if self.manifest() is None:  # another split may have been faster
                    self._write(CLASSES, json.dumps(list(class_names), ensure_ascii=False))
                    self._write_manifest({"complete": False, "ingredients": plain(ingredients)})
        manifest = self.manifest()
        if manifest["fingerprint"] != fingerprint(ingredients):
            changed = differences(manifest["ingredients"], plain(ingredients))
            raise UserError(
                f"expansion.output_dir={self.path} is not allowed: it was made with another configuration ({changed}); "
                "give another directory, or that configuration"
            )

    def locked(self) -> AbstractContextManager[None]:
        """For the moments in which a process changes what all share."""
        return held(self.path / LOCK)

    def rows(self) -> dict[str, dict[str, Any]]:
        """Metadata of the images that are there, by file name."""
        finished = self.path / METADATA
        rows = {}
        if finished.is_file():
            table = pyarrow.parquet.read_table(finished).to_pylist()
            rows = {row["file_name"]: row for row in table if (self.path / row["file_name"]).is_file()}
        return rows | read_journals(self.path)

    def settled(self) -> set[str]:
        """The names of images that need not be made: they are there, or failed."""
        return self.rows().keys() | read_failures(self.path).keys()

    @on_disk
    def note_time(self, seconds: float) -> None:
        """Adds to the seconds that making images took, all processes and runs together."""
        with self.locked():
            manifest = self.manifest()
            timing = manifest.get("timing", {})
            self._write_manifest(manifest | {"timing": {"expand": round(timing.get("expand", 0.0) + seconds, 3)}})

    def list_failures(self, share: Share, unreadable: Iterable[Unreadable]) -> None:
        """Moves a share's failures from its journal to the list of all; where that cannot be written they stay there."""
        with contextlib.suppress(OSError), self.locked():
            list_failures(self.path, unreadable, FAILURE_JOURNALS.replace("*", share.name))

    @on_disk
    def finish(self, plan: ExpansionPlan, counts: dict[str, int], card: str) -> int:
        """Completes the directory where all of the plan's images are there; returns how many are not.

        Failed samples are accounted for, not lacking. Writes the metadata in the plan's order, then that of what an
        earlier, larger plan left.
        """
        with self.locked():
            rows, names, failed = self.rows(), list(plan.file_names()), read_failures(self.path)
            lacking = sum(name not in rows and name not in failed for name in names)
            if lacking:
                return lacking
            ordered = [rows.pop(name) for name in names if name in rows]
            ordered += sorted(rows.values(), key=lambda row: (row["copy"], row["file_name"]))
            self._write_metadata(ordered)
            list_failures(self.path, plan.images.unreadable)
            self._write("README.md", card)
            for journal in self.path.glob(JOURNALS):
                journal.unlink(missing_ok=True)
            forget_shares(self.path)
            shutil.rmtree(self.path / ASIDES, ignore_errors=True)
            factor = max(plan.factor, *(1 + row["copy"] for row in ordered), 1)
            total = counts | {"images": len(ordered), "factor": factor}
            self._write_manifest(
                self.manifest() | {"complete": True, "counts": total}
            )  # last: a crash before repeats this
            self.forget_lock()
        return 0

    def holds(self, plan: ExpansionPlan) -> bool:
        """Whether the directory is complete, and has all of the plan's images but those that failed."""
        complete = self.manifest()["complete"] and not len(plan.missing(self.settled()))
        if complete:
            self.forget_lock()
        return complete

    def forget_lock(self) -> None:
        """Removes the lock of a complete directory, as far as that may be written to."""
        with contextlib.suppress(OSError):
            (self.path / LOCK).unlink()

    def manifest(self) -> dict[str, Any] | None:
        path = self.path / MANIFEST
        return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None

    def identity(self) -> str:
        """What its images depend on, and how many there are: enough to tell two contents apart."""
        manifest = self.manifest()
        return f"{manifest['fingerprint']}x{manifest['counts']['factor']}"

    def images_per_second(self) -> float | None:
        """Images over the seconds that making them took, all runs together."""
        manifest = self.manifest()
        seconds = manifest.get("timing", {}).get("expand")
        return manifest["counts"]["images"] / seconds if seconds else None

    def _write_metadata(self, rows: list[dict[str, Any]]) -> None:
        class_names = json.loads((self.path / CLASSES).read_text(encoding="utf-8"))
        features = {
            "file_name": Value("string"),
            "label": ClassLabel(names=class_names),
            "class_name": Value("string"),
            "source": Value("string"),
            "copy": Value("int64"),
            "seed": Value("int64"),
            "strength": Value("float64"),
        } | {name: kind for name, kind in OPTIONAL_COLUMNS.items() if rows and name in rows[0]}
        columns = {name: [row[name] for row in rows] for name in features}
        aside = self.path / f".{METADATA}.part"
        # The `datasets` schema inside the file is what makes labels come back as names, not numbers.
        Dataset.from_dict(columns, features=Features(features)).to_parquet(aside)
        os.replace(aside, self.path / METADATA)

    def _write_manifest(self, content: dict[str, Any]) -> None:
        identity = {
            "format": "distdiff-expanded/1",
            "fingerprint": fingerprint(content["ingredients"]),
            "versions": {name: version(name) for name in PACKAGES},
        }
        self._write(MANIFEST, json.dumps(content | identity, indent=2, ensure_ascii=False))

    def _write(self, name: str, text: str) -> None:
        aside = self.path / f".{name}.part"
        aside.write_text(text + "\n", encoding="utf-8")
        os.replace(aside, self.path / name)


def read_expanded(
    path: Path | str, class_names: tuple[str, ...] | None = None, factor: int | None = None
) -> LabelledImages:
    """The images of a finished expanded dataset, of copies below `factor` if given.

    Labels follow `class_names` where given. Raises `UserError` for a directory that is none, or is not complete.
    """
    root = Path(path)
    manifest = ExpandedDirectory(root).manifest()
    if manifest is None:
        raise UserError(f"{root} is no expanded dataset: it has no {MANIFEST}")
    if not manifest["complete"]:
        raise UserError(f"{root} is not complete: run the command that made it again, it goes on from there")
    rows = [
        row for row in pyarrow.parquet.read_table(root / METADATA).to_pylist() if factor is None or row["copy"] < factor
    ]
    names = class_names or tuple(json.loads((root / CLASSES).read_text(encoding="utf-8")))
    number = {name: label for label, name in enumerate(names)}
    unknown = sorted({row["class_name"] for row in rows} - set(names))
    if unknown:
        raise UserError(f"{root} has classes that the dataset lacks: {', '.join(unknown)}")
    files = [_inside(root, row["file_name"]) for row in rows]

    def read(index: int) -> Image.Image:
        return read_image(files[index])

    return LabelledImages(
        name=root.name,
        class_names=names,
        labels=np.array([number[row["class_name"]] for row in rows], dtype=np.int64),
        keys=tuple(row["file_name"] for row in rows),
        read=read,
        indices=np.arange(len(rows)),
    )


def link(place: Path, target: Path) -> None:
    """A symbolic link from a run's directory to expanded data, replaced where it is there already."""
    place.parent.mkdir(parents=True, exist_ok=True)
    place.unlink(missing_ok=True)
    place.symlink_to(target.resolve(), target_is_directory=True)


def differences(before: Any, now: Any, prefix: str = "") -> str:
    """Names what differs between two nested mappings: `guidance.rho: 1 there, 3 here`."""
    if isinstance(before, dict) and isinstance(now, dict):
        parts = [differences(before.get(key), now.get(key), f"{prefix}{key}.") for key in sorted({*before, *now})]
        return ", ".join(part for part in parts if part)
    return "" if before == now else f"{prefix.rstrip('.')}: {before} there, {now} here"


def _inside(root: Path, name: str) -> Path:
    path = (root / name).resolve()
    if not path.is_relative_to(root.resolve()):
        raise UserError(f"{root}: {METADATA} names a file outside of it, {name!r}")
    return path
