"""Reads a file at given positions from several threads, on every operating system."""

import os
from io import FileIO
from threading import Lock


class PositionedFile:
    """An open file whose bytes several threads read at positions of their own.

    Windows has no `pread`, and old versions of macOS have no `preadv`. Without them, threads take turns to move the
    file's own position. The file must be unbuffered, so that no old content is read.
    """

    def __init__(self, file: FileIO) -> None:
        self._file = file
        self._turn = Lock()

    def read(self, size: int, position: int) -> bytes:
        """Up to `size` bytes from `position`; fewer only if the file ends there."""
        if hasattr(os, "pread"):
            return os.pread(self._file.fileno(), size, position)
        with self._turn:
            self._file.seek(position)
            return self._file.read(size)

    def read_into(self, buffer: memoryview, position: int) -> int:
        """Fills `buffer` from `position`; returns how many bytes there were."""
        if hasattr(os, "preadv"):
            return os.preadv(self._file.fileno(), [buffer], position)
        with self._turn:
            self._file.seek(position)
            return self._file.readinto(buffer)
