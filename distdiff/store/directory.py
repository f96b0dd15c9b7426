"""An expanded dataset's directory: its configuration, its contents, and how it is finished."""

import contextlib
import io
import json
import os
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import cache, cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
from datasets import Features
from PIL import Image

from distdiff.caching.fingerprint import fingerprint, plain
from distdiff.data.images import Unreadable
from distdiff.data.reading.decoding import read_image
from distdiff.errors import UserError, first_line
from distdiff.store.columns import CLASSES, METADATA, class_names_of, column_values, metadata_features
from distdiff.store.contents import Contents
from distdiff.store.failures import FAILURE_JOURNALS, list_failures, read_failures
from distdiff.store.formats.base import ASIDES, Storage
from distdiff.store.formats.known import storage_of
from distdiff.store.journal import JOURNALS, Row, read_journals
from distdiff.store.names import differing_in_case
from distdiff.store.options import IMAGEFOLDER, StorageOptions
from distdiff.store.shares import LOCK, OUTPUT_DIR, Share, forget_shares, locked
from distdiff.store.tables import read_table
from distdiff.texts import UnreadableFile, read_json
from distdiff.writing import on_disk

MANIFEST = "manifest.json"
BEGUN = (CLASSES, MANIFEST, f".{CLASSES}.part", f".{MANIFEST}.part")  # files that another process may be writing
PACKAGES = ("distdiff", "torch", "diffusers", "transformers", "lightning", "scikit-learn")


class ExpandedDirectory:
    """The directory of an expanded dataset.

    The directory holds images in one of the storage formats, `metadata.parquet`, `classes.json`, `manifest.json` and a
    dataset card.
    """

    def __init__(self, path: Path, key: str = OUTPUT_DIR) -> None:
        """`key` is the configuration key that gave `path`. Error messages name this key."""
        self.path = path
        self.key = key

    @on_disk
    def claim(
        self,
        ingredients: Mapping[str, Any],
        class_names: tuple[str, ...],
        options: StorageOptions = StorageOptions(),  # noqa: B008 (frozen)
        columns: Mapping[str, str] | None = None,
        notes: Callable[[], Mapping[str, Any]] = dict,
    ) -> None:
        """Makes the directory, or checks that an existing directory has the same ingredients and storage options.

        `columns` has the kind of each metadata column that the method declares, by column name. A new manifest also gets
        `notes()`, which identify nothing. Raises `UserError` if
        the existing directory has other ingredients or storage options, or if it holds files but is no expanded
        dataset.
        """
        if self.manifest() is None:
            self.refuse_other_files()
            self.path.mkdir(parents=True, exist_ok=True)
            with self.locked():
                if self.manifest() is None:  # another split may have written the manifest meanwhile
                    self._write(CLASSES, json.dumps(list(class_names), ensure_ascii=False))
                    content = {"ingredients": plain(ingredients), "storage": options.as_dict()}
                    self._write_manifest({"complete": False} | content | {"columns": dict(columns or {})} | notes())
        manifest = self.manifest()
        if manifest["fingerprint"] != fingerprint(ingredients) or self.storage.options != options:
            changed = changed_keys(
                manifest["ingredients"] | {"expansion": self.storage.options.as_dict()},
                plain(ingredients) | {"expansion": options.as_dict()},
            )
            raise UserError(
                f"{self.key}={self.path} is not allowed: it was made with another configuration ({changed}); "
                "give another directory, or use that configuration"
            )

    def refuse_other_files(self) -> None:
        """Raises `UserError` if the directory holds files but is no expanded dataset."""
        if self.manifest() is not None or not self.path.is_dir():
            return
        if any(entry.name not in BEGUN and not entry.name.startswith(LOCK) for entry in self.path.iterdir()):
            raise UserError(
                f"{self.key}={self.path} is not allowed: it holds other files; give an empty or a new directory"
            )

    @on_disk
    def note(self, **notes: Any) -> None:
        """Adds `notes`, which identify nothing, to the manifest, in the place of earlier ones of the same names."""
        with self.locked():
            self._write_manifest(self.manifest() | notes)

    def check_names(self, contents: Contents) -> None:
        """Raises `UserError` if the file system does not tell apart the names of two of the images.

        The usual file systems of Windows and macOS ignore the case of letters. Only files in folders have names there.
        """
        ignores_case = (self.path / MANIFEST.upper()).exists()
        if (
            self.storage.options.format == IMAGEFOLDER
            and ignores_case
            and (names := differing_in_case(contents.file_names()))
        ):
            raise UserError(
                f"{self.key}={self.path} is not allowed: this disk does not tell {names[0]} from {names[1]}; rename one, use "
                "another disk, or choose the format webdataset or parquet"
            )

    def locked(self) -> AbstractContextManager[None]:
        """A lock to hold while changing files that all processes share."""
        return locked(self.path)

    @cached_property
    def storage(self) -> Storage:
        """The storage of the images. Raises `UserError` if the directory has no manifest."""
        manifest = self.manifest()
        if manifest is None:
            raise UserError(f"{self.path} is gone, or is no expanded dataset: it has no {MANIFEST}")
        try:
            return storage_of(self.path, StorageOptions(**manifest.get("storage", {})), manifest.get("columns", {}))
        except (TypeError, KeyError) as error:
            reason = f"its storage is not known to this version ({first_line(error)})"
            raise UnreadableFile(self.path / MANIFEST, reason) from None

    def rows(self) -> dict[str, dict[str, Any]]:
        """The metadata rows of the images that exist, by file name."""
        finished = self.path / METADATA
        rows = read_table(finished, ("file_name",)).to_pylist() if os.path.lexists(finished) else []
        return self.storage.present([*rows, *read_journals(self.path)])

    def settled(self) -> set[str]:
        """The file names of images that need not be made, because these images exist already or have failed."""
        return self.rows().keys() | read_failures(self.path).keys()

    @on_disk
    def note_time(self, seconds: float, images: int) -> None:
        """Adds the seconds spent on making images, and the number of these images, to the manifest's totals.

        The totals are over all jobs and runs.
        """
        with self.locked():
            manifest = self.manifest()
            timing = manifest.get("timing", {})
            seconds, images = timing.get("expand", 0.0) + seconds, timing.get("images", 0) + images
            self._write_manifest(manifest | {"timing": {"expand": round(seconds, 3), "images": images}})

    def list_failures(self, share: Share, unreadable: Iterable[Unreadable]) -> None:
        """Moves a share's failures from its journal to `failures.parquet`.

        Does nothing if that file cannot be written.
        """
        with contextlib.suppress(OSError), self.locked():
            list_failures(self.path, unreadable, FAILURE_JOURNALS.replace("*", share.name))

    @on_disk
    def finish(self, contents: Contents, counts: dict[str, int], card: str) -> int:
        """Completes the directory if all images of `contents` exist, and returns the number of missing images.

        Failed samples do not count as missing. The metadata rows are in the order of `contents`. If an earlier plan
        with a larger factor left further images, the rows of these images come last.
        """
        with self.locked():
            rows, names, failed = self.rows(), list(contents.file_names()), read_failures(self.path)
            lacking = sum(name not in rows and name not in failed for name in names)
            if lacking:
                return lacking
            self.storage.seal()
            ordered = [rows.pop(name) for name in names if name in rows]
            surplus = sorted(rows.values(), key=lambda row: (row["copy"], row["file_name"]))
            ordered += surplus
            features = metadata_features(class_names_of(self.path), ordered, self.storage.declared)
            self._write_metadata(ordered, Features(features | self.storage.columns))
            list_failures(self.path, contents.unreadable)
            total = counts | {"images": len(ordered), "factor": contents.factor_with(surplus)}
            self._write("README.md", self.storage.card(card, self.identity(total["factor"]), features))
            for journal in self.path.glob(JOURNALS):
                journal.unlink(missing_ok=True)
            forget_shares(self.path)
            shutil.rmtree(self.path / ASIDES, ignore_errors=True)
            self._write_manifest(
                self.manifest() | {"complete": True, "counts": total}
            )  # written last, so that after a crash the next run repeats all steps
            self.forget_lock()
        return 0

    @on_disk
    def clear(self) -> None:
        """Removes the images and their metadata. The directory stays claimed."""
        with self.locked():
            self._write_manifest(self.manifest() | {"complete": False})
            self.storage.clear()  # before the rows, because a remaining image must have a row
            (self.path / METADATA).unlink(missing_ok=True)
            for journal in self.path.glob(JOURNALS):
                journal.unlink(missing_ok=True)
            shutil.rmtree(self.path / ASIDES, ignore_errors=True)

    def holds(self, contents: Contents) -> bool:
        """Whether the directory is complete and has all images of `contents` except failed samples."""
        manifest = self.manifest()
        complete = manifest is not None and manifest["complete"] and not len(contents.missing(self.settled()))
        if complete:
            self.forget_lock()
        return complete

    def forget_lock(self) -> None:
        """Removes the lock file of a complete directory, if the directory can be written to."""
        with contextlib.suppress(OSError):
            (self.path / LOCK).unlink()

    def manifest(self) -> dict[str, Any] | None:
        """The content of the manifest, or None if there is none. Raises `UnreadableFile`."""
        path = self.path / MANIFEST
        if not os.path.lexists(path):
            return None
        content = read_json(path)
        if lacking := [name for name in ("complete", "ingredients", "fingerprint") if name not in content]:
            raise UnreadableFile(path, f"it has no {lacking[0]}, so it is no manifest of an expanded dataset")
        return content

    def identity(self, factor: int | None = None) -> str:
        """A name made from all that the images depend on. Different contents have different names.

        `factor` is the number of copies per source. If `factor` is None, the number in the manifest is used.
        """
        manifest = self.manifest()
        parts = (
            f"{manifest['fingerprint']}x{factor or manifest['counts']['factor']}",
            self.storage.options.encoding.words,
        )
        return "-".join(filter(None, parts))

    def images(self, rows: Sequence[Row]) -> Callable[[int], Image.Image]:
        """A function that reads the image of `rows[i]` as RGB.

        Raises `UserError` if a row names a file outside of the directory.
        """
        read = self.storage.reader(rows)

        def image(index: int) -> Image.Image:
            return read_image(io.BytesIO(read(index)), f"{self.path}/{rows[index]['file_name']}")

        return image

    def images_per_second(self) -> float | None:
        """The number of images that a job, with all its ranks, made per second, on average over all jobs and runs.

        A job that was killed before it recorded its time does not count. The result is None if no job recorded its
        time.
        """
        timing = self.manifest().get("timing", {})
        return timing["images"] / timing["expand"] if timing.get("images") and timing["expand"] else None

    def _write_metadata(self, rows: list[Row], features: Features) -> None:
        aside = self.path / f".{METADATA}.part"
        # The file includes the `datasets` schema, so that labels are loaded with their names, not as plain numbers.
        pyarrow.parquet.write_table(pyarrow.table(column_values(rows, features), schema=features.arrow_schema), aside)
        os.replace(aside, self.path / METADATA)

    def _write_manifest(self, content: dict[str, Any]) -> None:
        identity = {
            "format": "distdiff-expanded/1",
            "fingerprint": fingerprint(content["ingredients"]),
            "versions": _versions(),
        }
        self._write(MANIFEST, json.dumps(content | identity, indent=2, ensure_ascii=False))

    def _write(self, name: str, text: str) -> None:
        aside = self.path / f".{name}.part"
        aside.write_text(text + "\n", encoding="utf-8")
        os.replace(aside, self.path / name)


@cache  # looking for them takes longer than writing a small expansion's files
def _versions() -> dict[str, str]:
    return {name: version(name) for name in PACKAGES}


def encoder_of(ingredients: Mapping[str, Any]) -> str | None:
    """The fingerprint of the encoder whose features guide the images of an expansion, or choose among them; None without one."""
    return ingredients.get("encoder") or ingredients.get("selection", {}).get("encoder")


def changed_keys(before: Any, now: Any, prefix: str = "") -> str:
    """Lists the differences between two nested mappings, such as `guidance.rho: 1 there, 3 here`.

    "There" is the mapping `before`, and "here" is the mapping `now`.
    """
    if isinstance(before, dict) and isinstance(now, dict):
        parts = [changed_keys(before.get(key), now.get(key), f"{prefix}{key}.") for key in sorted({*before, *now})]
        return ", ".join(part for part in parts if part)
    return "" if before == now else f"{prefix.rstrip('.')}: {before} there, {now} here"
