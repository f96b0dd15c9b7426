"""The base class of the formats that store many images in one file, a shard.

Each share has one open tar in its own folder below `.unfinished`. Images are appended to this tar. After that, the
images' rows, which name the shard and the place in the shard, are appended to the share's journal. An image exists if
its row is in a journal and its shard is long enough to hold the image. If a crash left data after the last such image,
the next writer cuts off this data. A full shard is closed by a rename into `data/`, and is never changed again.
"""

import json
import os
import re
import shutil
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import pyarrow.compute
from datasets import Features

from distdiff.errors import UserError
from distdiff.placeholders import placeholder
from distdiff.store.cards import loadable_card
from distdiff.store.columns import METADATA
from distdiff.store.formats.base import ASIDES, Storage, file_below, make_asides
from distdiff.store.formats.tar import header, member
from distdiff.store.journal import Row, append_rows, journal_of, read_rows, replace_rows
from distdiff.store.shares import locked
from distdiff.store.tables import read_table
from distdiff.texts import UnreadableFile

DATA = "data"
_NUMBER = re.compile(r"(.+)-(\d{5,})\.\w+")


@dataclass
class OpenShard:
    """A tar that images are appended to.

    `name` is the name of the finished shard. `rows` holds the metadata row of each image in it, in the order of appending.
    """

    name: str
    path: Path
    rows: list[Row] = field(default_factory=list)

    @property
    def end(self) -> int:
        return self.rows[-1]["end"] if self.rows else 0


class Sharded(Storage):
    """Storage in shards `data/<share>-<number>.<suffix>`."""

    suffix: ClassVar[str]

    @abstractmethod
    def close(self, shard: OpenShard) -> None:
        """Finishes the open shard, and renames the result to `shard_path(shard)`."""

    def shard_path(self, shard: OpenShard) -> Path:
        return self.directory / DATA / shard.name

    def present(self, rows: Sequence[Row]) -> dict[str, Row]:
        reach = self._reach()
        return {row["file_name"]: row for row in rows if _is_there(row, reach)}

    def begin(self, share: str) -> None:
        self.share, self.journal = share, journal_of(self.directory, share)
        make_asides(self.directory, share)
        with locked(self.directory):
            self._numbers = iter(range(self._highest_number() + 1, 10**9))
            self.open = None
            for shard in self._recovered(share):
                if len(shard.rows) < self.options.shard_size:
                    self.open = shard
                else:
                    self._seal(shard)

    def write(self, batch: Sequence[tuple[Row, bytes]]) -> None:
        while batch:
            if self.open is None:
                name = f"{self.share}-{next(self._numbers):05d}.{self.suffix}"
                self.open = OpenShard(name, self._open_path(name))
            room = self.options.shard_size - len(self.open.rows)
            self._append(batch[:room])
            batch = batch[room:]
            if len(self.open.rows) == self.options.shard_size:
                with locked(self.directory):
                    if self.open.path.exists():  # else another process has already sealed the shard
                        self._seal(self.open)
                self.open = None

    def seal(self) -> None:
        for folder in sorted((self.directory / ASIDES).glob("*/")):
            for shard in self._recovered(folder.name):
                self._seal(shard)

    def clear(self) -> None:
        shutil.rmtree(self.directory / DATA, ignore_errors=True)

    def card(self, text: str, identity: str, features: Features) -> str:
        return loadable_card(text, identity, f"{DATA}/*.{self.suffix}", self.card_features(features))

    def card_features(self, features: Features) -> Features | None:
        """The columns that the card must describe because the shards do not.

        The result is None if the shards describe all columns.
        """
        return None

    def shards(self, rows: Sequence[Row]) -> dict[str, Path]:
        """The paths of the shards that `rows` name.

        Raises `UserError` if a shard is outside of the directory or missing.
        """
        paths = {name: file_below(self.directory, name) for name in {row["shard"] for row in rows}}
        for name, path in paths.items():
            if not os.path.lexists(self.directory / name):
                raise UserError(f"{self.directory} lacks its file {name}: repeat the command that made this directory")
            if (instead := placeholder(path)) is not None:
                raise UnreadableFile(self.directory / name, instead)
        return paths

    def _append(self, batch: Sequence[tuple[Row, bytes]]) -> None:
        shard, data, rows = self.open, bytearray(), []
        for row, image in batch:
            key, extension = member_key(row["file_name"])
            name = f"{key}.{extension}"
            place = {"shard": f"{DATA}/{shard.name}", "row": len(shard.rows) + len(rows), "size": len(image)}
            place["offset"] = shard.end + len(data) + len(header(name, len(image)))
            data += member(name, image) + member(f"{key}.cls", str(row["label"]).encode())
            data += member(f"{key}.json", json.dumps(row, ensure_ascii=False).encode())
            rows.append(row | place | {"end": shard.end + len(data)})
        with open(shard.path, "r+b" if shard.rows else "wb") as file:
            file.seek(shard.end)
            file.write(data)
        append_rows(self.journal, rows)
        shard.rows += rows

    def _seal(self, shard: OpenShard) -> None:
        (self.directory / DATA).mkdir(exist_ok=True)
        os.truncate(shard.path, shard.end)
        self.close(shard)

    def _recovered(self, share: str) -> Iterator[OpenShard]:
        """The open shards of a share, with the rows of their intact images.

        The caller must hold the directory's lock, and no process may write to the share meanwhile. Rows of lost images
        are first removed from the journal, because other images will be written to their places in the shard.
        """
        rows, folder, reach = self._journaled(share), self.directory / ASIDES / share, self._reach()
        there = [row for row in rows if _is_there(row, reach)]
        if len(there) < len(rows):
            replace_rows(journal_of(self.directory, share), there)
        for path in sorted(folder.iterdir()):
            name = f"{path.stem}.{self.suffix}"
            held = [row for row in there if row["shard"] == f"{DATA}/{name}"]
            if path.suffix != ".tar" or not held or (self.directory / DATA / name).exists():
                path.unlink()  # a half converted shard, a tar without images, or a tar already made into a shard
            else:
                yield OpenShard(name, path, held)

    def _journaled(self, share: str) -> list[Row]:
        journal = journal_of(self.directory, share)
        return list(read_rows(journal)) if journal.is_file() else []

    def _reach(self) -> dict[str, float]:
        """How many bytes of each shard exist, by the shard's name. For a closed shard, the number is infinity."""
        reach = {}
        for path in self.directory.glob(f"{ASIDES}/*/*.tar"):
            try:
                reach[f"{DATA}/{path.stem}.{self.suffix}"] = path.stat().st_size
            except FileNotFoundError:
                continue  # the tar was just closed, so its shard is found below
        return reach | {f"{DATA}/{path.name}": float("inf") for path in self.directory.glob(f"{DATA}/*.{self.suffix}")}

    def _highest_number(self) -> int:
        """The highest number of the share's shards so far, or -1 if there are none.

        Deleted shards count as well, because rows may still name them.
        """
        names = {row["shard"] for row in self._journaled(self.share)} | set(self._reach())
        if (self.directory / METADATA).is_file():
            column = read_table(self.directory / METADATA, columns=["shard"])["shard"]
            names |= set(pyarrow.compute.unique(column).to_pylist())
        matches = filter(None, (_NUMBER.fullmatch(Path(name).name) for name in names))
        return max((int(match[2]) for match in matches if match[1] == self.share), default=-1)

    def _open_path(self, name: str) -> Path:
        return self.directory / ASIDES / self.share / f"{Path(name).stem}.tar"


def member_key(file_name: str) -> tuple[str, str]:
    """A file name as (key, extension). The key has no dot, because a WebDataset's key ends at the first dot.

    Distinct names stay distinct.

    >>> member_key("cat/a.png__0000.jpg")
    ('cat/a%2Epng__0000', 'jpg')
    """
    stem, _, extension = file_name.rpartition(".")
    return stem.replace(".", "%2E"), extension  # `safe_name` escapes a dot only at a name's beginning or end


def _is_there(row: Row, reach: dict[str, float]) -> bool:
    return row.get("end", 0) <= reach.get(row["shard"], -1)
