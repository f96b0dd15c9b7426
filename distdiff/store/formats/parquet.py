"""Parquet shards as `datasets` writes them, with the columns `image` (bytes and path), `label` and the metadata columns."""

import os
from collections.abc import Callable, Sequence
from functools import lru_cache
from threading import Lock
from typing import ClassVar

import pyarrow
import pyarrow.parquet
from datasets import Features, Image

from distdiff.errors import first_line
from distdiff.store.columns import PLACES, class_names_of, column_values, metadata_features
from distdiff.store.formats.shards import OpenShard, Sharded
from distdiff.store.journal import Row
from distdiff.texts import UnreadableFile

ROW_GROUP = 25  # images that are read together, even if only one is needed
CACHED_GROUPS = 16  # groups that are kept in memory, because several threads read ahead


class Parquet(Sharded):
    """Parquet shards: images are first appended to a tar, and each finished tar is converted into a shard.

    The metadata column `row` is the index of an image in its shard.
    """

    suffix = "parquet"
    columns: ClassVar = {name: PLACES[name] for name in ("shard", "row")}

    def close(self, shard: OpenShard) -> None:
        features = metadata_features(class_names_of(self.directory), shard.rows, self.declared)
        schema = Features({"image": Image()} | features).arrow_schema
        aside = shard.path.with_suffix(".parquet")
        with open(shard.path, "rb") as tar, pyarrow.parquet.ParquetWriter(aside, schema) as writer:
            for start in range(0, len(shard.rows), ROW_GROUP):
                group = shard.rows[start : start + ROW_GROUP]
                columns = column_values(group, features)
                columns["image"] = [{"bytes": _content(tar, row), "path": row["file_name"]} for row in group]
                writer.write_table(pyarrow.table(columns, schema=schema))
        os.replace(aside, self.shard_path(shard))
        shard.path.unlink()

    def card_features(self, features: Features) -> Features:
        """All columns, although the shards describe their columns too.

        Without a description in the card, `datasets` would take the columns from the first shard, which may lack some
        columns if an older version wrote it.
        """
        return Features({"image": Image()} | features)

    def reader(self, rows: Sequence[Row]) -> Callable[[int], bytes]:
        paths = self.shards(rows)
        places = [(row["shard"], *divmod(row["row"], ROW_GROUP)) for row in rows]

        @lru_cache(maxsize=CACHED_GROUPS)
        def group(shard: str, number: int) -> list[bytes]:
            try:
                with pyarrow.parquet.ParquetFile(paths[shard]) as file:
                    images = file.read_row_group(number, columns=["image"])["image"].to_pylist()
                return [image["bytes"] for image in images]
            except (pyarrow.ArrowException, OSError, ValueError, KeyError, TypeError) as error:
                raise UnreadableFile(self.directory / shard, f"it cannot be read ({first_line(error)})") from None

        one = Lock()  # threads that need the same group wait until one of them has read it

        def read(index: int) -> bytes:
            shard, number, position = places[index]
            with one:
                images = group(shard, number)
            return images[position]

        return read


def _content(tar, row: Row) -> bytes:
    tar.seek(row["offset"])
    return tar.read(row["size"])
