"""One file per image in class folders: `<class>/<source key>__<copy>.<extension>`."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path

from datasets import Features

from distdiff.data.reading.decoding import UnreadableImage
from distdiff.placeholders import placeholder
from distdiff.store.formats.base import Storage, check_below, file_below, make_asides
from distdiff.store.journal import Row, append_rows, journal_of
from distdiff.texts import UnreadableFile


class ImageFolder(Storage):
    """Writes images to temporary files, and renames these files into place once the images' rows are in the journal."""

    def present(self, rows: Sequence[Row]) -> dict[str, Row]:
        files = _files(self.directory)
        return {row["file_name"]: row for row in rows if row["file_name"] in files}

    def begin(self, share: str) -> None:
        self.journal = journal_of(self.directory, share)
        self.asides = make_asides(self.directory, share)

    def write(self, batch: Sequence[tuple[Row, bytes]]) -> None:
        finished = []
        for position, (row, image) in enumerate(batch):
            path, aside = self.directory / row["file_name"], self.asides / str(position)
            path.parent.mkdir(exist_ok=True)
            aside.write_bytes(image)
            finished.append((aside, path))
        # Rows are written first, so that every image in place has a row; a row without its image does not count.
        append_rows(self.journal, [row for row, _ in batch])
        for aside, path in finished:
            os.replace(aside, path)

    def seal(self) -> None:
        """Does nothing, because no file stays open."""

    def clear(self) -> None:
        for name in _files(self.directory):
            (self.directory / name).unlink(missing_ok=True)

    def reader(self, rows: Sequence[Row]) -> Callable[[int], bytes]:
        names = [row["file_name"] for row in rows]
        for name in names:
            check_below(self.directory, name)

        def read(index: int) -> bytes:
            try:
                path = file_below(self.directory, names[index])
                instead = placeholder(path)
            except UnreadableFile as error:
                instead = error.reason
            if instead is not None:
                raise UnreadableImage(f"{self.directory}/{names[index]}", instead)
            return path.read_bytes()

        return read

    def card(self, text: str, identity: str, features: Features) -> str:
        return text  # `datasets` needs only the folders and metadata.parquet


def _files(directory: Path) -> set[str]:
    """The names of all files in class folders. Listing many files is far faster than looking for each one."""
    names = set()
    with os.scandir(directory) as folders:
        for folder in folders:
            if folder.is_dir() and not folder.name.startswith("."):
                with os.scandir(folder) as files:
                    names.update(f"{folder.name}/{file.name}" for file in files if file.is_file())
    return names
