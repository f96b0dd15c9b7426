"""Unpacks a .zip or .tar archive of images once, and refuses unsafe archives."""

import shutil
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from distdiff.caching.stages import StageCache
from distdiff.data.naming import ARCHIVES
from distdiff.data.reading.walk import holds_images, subfolders
from distdiff.errors import UserError, first_line

CONTENT = "content"


def is_archive(path: Path) -> bool:
    return path.is_file() and path.name.lower().endswith(ARCHIVES)


def unpacked(archive: Path, cache_dir: str) -> Path:
    """Unpacks the archive below `cache_dir` the first time, and returns the folder with the archive's content.

    If everything lies in one folder that holds no images directly, returns that folder. Raises `UserError` for an
    archive that is damaged or encrypted, that holds a link, or that holds a path leading out of the archive.
    """
    stat = archive.stat()
    identity = {"archive": str(archive.resolve()), "size": stat.st_size, "changed": stat.st_mtime_ns}
    folder = StageCache(cache_dir).get("archives", identity, lambda aside: _unpack(archive, aside / CONTENT)) / CONTENT
    while not holds_images(folder) and len(inside := subfolders(folder)) == 1 and not holds_images(folder / inside[0]):
        folder = folder / inside[0]
    return folder


def _unpack(archive: Path, folder: Path) -> None:
    folder.mkdir()
    try:
        if archive.name.lower().endswith(".zip"):
            with zipfile.ZipFile(archive) as opened:
                _check_room(archive, folder, sum(member.file_size for member in opened.infolist()))
                _write(archive, folder, _zip_files(archive, opened))
        else:
            with tarfile.open(archive) as opened:
                _write(archive, folder, _tar_files(archive, opened))
    except (zipfile.BadZipFile, tarfile.TarError, EOFError, zlib.error, RuntimeError, NotImplementedError) as error:
        raise UserError(f"dataset.root={archive}: cannot unpack it ({first_line(error)})") from None


def _zip_files(archive: Path, opened: zipfile.ZipFile) -> Iterator[tuple[str, BinaryIO]]:
    for member in opened.infolist():
        kind = member.external_attr >> 28  # the file type bits of the Unix mode; 0 if the archive has none
        if kind not in (0, 0o4, 0o10):
            raise UserError(
                f"dataset.root={archive}: it holds a link or device, {member.filename!r}: unpack it yourself"
            )
        if not member.is_dir():
            with opened.open(member) as content:
                yield member.filename, content


def _tar_files(archive: Path, opened: tarfile.TarFile) -> Iterator[tuple[str, BinaryIO]]:
    for member in opened:
        if not (member.isfile() or member.isdir()):
            raise UserError(f"dataset.root={archive}: it holds a link or device, {member.name!r}: unpack it yourself")
        if member.isfile():
            with opened.extractfile(member) as content:
                yield member.name, content


def _write(archive: Path, folder: Path, files: Iterator[tuple[str, BinaryIO]]) -> None:
    for name, content in files:
        place = PurePosixPath(name.replace("\\", "/"))
        if place.is_absolute() or ".." in place.parts or not place.parts or place.parts[0].endswith(":"):
            raise UserError(f"dataset.root={archive}: it holds a path that leads out of it, {name!r}")
        if any(part.startswith(".") or part == "__MACOSX" for part in place.parts):
            continue
        target = folder.joinpath(*place.parts)
        target.parent.mkdir(parents=True, exist_ok=True)
        with open(target, "wb") as file:
            shutil.copyfileobj(content, file)


def _check_room(archive: Path, folder: Path, size: int) -> None:
    free = shutil.disk_usage(folder).free
    if size > free:
        raise UserError(
            f"dataset.root={archive}: unpacked, it takes {size:,} bytes, but only {free:,} are free in {folder.parent}"
        )
