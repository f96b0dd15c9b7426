"""WebDataset shards: tars with `<key>.png`, `<key>.cls` (the label) and `<key>.json` (the metadata) for each image."""

import os
from collections.abc import Callable, Sequence
from typing import ClassVar

from datasets import Features, Image, Value

from distdiff.store.columns import PLACES
from distdiff.store.formats.shards import OpenShard, Sharded
from distdiff.store.formats.tar import BLOCK, END, is_header
from distdiff.store.journal import Row
from distdiff.texts import UnreadableFile


class WebDataset(Sharded):
    """A full tar itself becomes the shard.

    The metadata columns `offset` and `size` locate an image file in the shard.
    """

    suffix = "tar"
    columns: ClassVar = {name: PLACES[name] for name in ("shard", "offset", "size")}

    def close(self, shard: OpenShard) -> None:
        with open(shard.path, "ab") as file:
            file.write(END)
        os.replace(shard.path, self.shard_path(shard))

    def reader(self, rows: Sequence[Row]) -> Callable[[int], bytes]:
        paths = self.shards(rows)
        places = [(row["shard"], row["offset"], row["size"]) for row in rows]

        def read(index: int) -> bytes:
            shard, offset, size = places[index]
            with open(paths[shard], "rb") as file:
                file.seek(offset - BLOCK)
                header, image = file.read(BLOCK), file.read(size)
            if not is_header(header) or len(image) < size:
                reason = "it is damaged or cut short: an image is not where the metadata say"
                raise UnreadableFile(self.directory / shard, reason)
            return image

        return read

    def card_features(self, features: Features) -> Features:
        """All columns.

        Without a description in the card, `datasets` would load `cls` as a number instead of a `ClassLabel`.
        """
        metadata = features | {"label": Value("int64")}
        return Features(
            {
                self.options.encoding.extension: Image(),
                "cls": features["label"],
                "json": metadata,
                "__key__": Value("string"),
                "__url__": Value("string"),
            }
        )
