"""The table of finished runs, a CSV file from which a study goes on, and to which several processes may add runs."""

import base64
import csv
import io
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np

from distdiff.errors import UserError
from distdiff.locking import held
from distdiff.ranks.world import world
from distdiff.store.columns import METADATA
from distdiff.study.runs import RunResult
from distdiff.writing import writing_to

KEY = "study.table"
PLAIN: Mapping[str, Callable[[str], Any]] = {  # columns, and how their text is read; an empty text is None
    **dict.fromkeys(("seed", "training_seed", "num_train", "steps"), int),
    **dict.fromkeys(("accuracy", "validation_accuracy"), float),
    **dict.fromkeys(("classifier", "augmentation", "expanded"), str),
}
CODED: Mapping[str, tuple[Callable[[Any], str], Callable[[str], Any]]] = {  # columns, how they are written and read
    **dict.fromkeys(("scores", "measures", "remarks"), (json.dumps, json.loads)),
    "correct": (lambda value: _packed(value), lambda text: _unpacked(text)),
}
BESIDE_MEASURES = ("views", "measured_by")  # fields of a run that are kept in the column `measures`, beside these
NAMES = [item.name for item in fields(RunResult) if item.name not in BESIDE_MEASURES]
COLUMNS = ["method", *NAMES, "fingerprint"]  # a line that is cut off has no whole fingerprint


class RunsTable:
    """The CSV file of `study.table`; without one (None), nothing is found and nothing is kept.

    A line is a run, whose `fingerprint` says what can change it. Lines of other studies are left alone, as are lines that
    a crash cut off. The measures are an object in JSON, which also holds `BESIDE_MEASURES`. `correct` has the labelling of
    each test image, right or wrong, as bits in base64.
    """

    def __init__(self, path: str | None) -> None:
        self.path = None if path is None else Path(path)
        if self.path is not None:
            world().once(lambda: self._check(self.path))

    def find_all(self, fingerprints: Mapping[str, Sequence[str]]) -> dict[str, list[RunResult | None]]:
        """The runs with the fingerprints of each row; None for those that are not finished. All ranks find the same."""
        known = world().once(lambda: {} if self.path is None else self._read(self.path))
        return {row: [known.get(each) for each in of_row] for row, of_row in fingerprints.items()}

    def add(self, fingerprint: str, method: str, run: RunResult) -> None:
        """Appends a finished run, unless another process has done so."""
        if self.path is None:
            return
        with writing_to(self.path.parent, KEY), held(self.path.with_name(f".{self.path.name}.lock")):
            if fingerprint not in self._read(self.path):
                values = {name: getattr(run, name) for name in NAMES}
                beside = {name: getattr(run, name) for name in BESIDE_MEASURES}
                values["measures"] = values["measures"] | {name: value for name, value in beside.items() if value}
                _append(self.path, [method, *(_text(name, value) for name, value in values.items()), fingerprint])

    def _check(self, path: Path) -> None:
        """Makes the folder of the table. Raises `UserError` if the file is no such table."""
        with writing_to(path.parent, KEY):
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.is_dir():
                raise UserError(f"{KEY}={path} is not allowed: it is a folder")
            first = _first_line(path) if path.is_file() else b""
        if not _line(COLUMNS).startswith(first):
            raise UserError(f"{KEY}={path} is not allowed: the file is there and is no table of runs; name another one")

    def _read(self, path: Path) -> dict[str, RunResult]:
        """The runs by fingerprint."""
        if not path.is_file():
            return {}
        with writing_to(path.parent, KEY):
            lines = _lines(path)
        found = {}
        for values in lines[1:]:
            if (run := _run(values)) is not None:
                found.setdefault(values[-1], run)
        return found


def _lines(path: Path) -> list[list[str]]:
    """The values of each line. No value has a line break, so a line that was cut off does not change the next ones."""
    text = path.read_text(encoding="utf-8", errors="replace")
    return [next(csv.reader([line]), []) for line in text.split("\n") if line]


def _first_line(path: Path) -> bytes:
    with open(path, "rb") as file:
        return file.readline(len(_line(COLUMNS)) + 1).replace(b"\r\n", b"\n")


def _append(path: Path, values: list[str]) -> None:
    """Appends a line, on a line of its own even if a crash cut off the one before."""
    has_columns = path.is_file() and _first_line(path) == _line(COLUMNS)
    with open(path, "ab+" if has_columns else "wb+") as file:
        if has_columns:
            file.seek(-1, os.SEEK_END)
            file.write(b"" if file.read(1) == b"\n" else b"\n")
        else:
            file.write(_line(COLUMNS))
        file.write(_line(values))
        file.flush()
        os.fsync(file.fileno())


def _line(values: list[str]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="").writerow([value.replace("\r", " ").replace("\n", " ") for value in values])
    return f"{text.getvalue()}\n".encode()


def _text(name: str, value: Any) -> str:
    if value is None:
        return ""
    return CODED[name][0](value) if name in CODED else str(value)


def _run(values: list[str]) -> RunResult | None:
    """The run in a line of the table; None if the line is not whole."""
    if len(values) != len(COLUMNS):
        return None
    read = {name: PLAIN[name] if name in PLAIN else CODED[name][1] for name in NAMES}
    try:
        found = {name: read[name](text) if text else None for name, text in zip(NAMES, values[1:-1], strict=True)}
    except ValueError:
        return None
    kept = found["measures"] if isinstance(found["measures"], dict) else {}
    beside = {name: kept.pop(name) for name in BESIDE_MEASURES if name in kept}
    run = RunResult(**found, **beside)
    if run.expanded is not None and not (Path(run.expanded) / METADATA).is_file():
        run.expanded = None  # made on another machine, or removed since
    return run


def _packed(correct: np.ndarray) -> str:
    return f"{len(correct)}:{base64.b64encode(np.packbits(correct)).decode()}"


def _unpacked(text: str) -> np.ndarray:
    count, _, coded = text.partition(":")
    packed = np.frombuffer(base64.b64decode(coded, validate=True), np.uint8)
    if len(packed) != -(-int(count) // 8):
        raise ValueError(f"{count} bits do not fit into {len(packed)} bytes")
    return np.unpackbits(packed, count=int(count)).astype(bool)
