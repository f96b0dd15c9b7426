"""Unpacks a .zip or .tar archive of images once, and refuses unsafe archives."""

import json
import os
import shutil
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from distdiff.caching.stages import StageCache
from distdiff.data.naming import ARCHIVES
from distdiff.data.reading.name_encoding import STANDARD, UTF8, RawName, check_encoding, decoded
from distdiff.data.reading.walk import holds_images, subfolders
from distdiff.errors import UserError, first_line
from distdiff.placeholders import placeholder
from distdiff.wording import counted

CONTENT, NAMES = "content", "names.json"
ZIP_UTF8 = 0x800  # the flag of a member whose name is UTF-8
UNICODE_PATH = 0x7075  # the kind of an extra field


def is_archive(path: Path) -> bool:
    return os.path.isfile(path) and path.name.lower().endswith(ARCHIVES)


@dataclass(frozen=True)
class Unpacked:
    """The folder with an archive's content, and the encoding assumed for file names whose encoding it does not say.

    `encoding` is None if there are no such names. `example` is one of these names.
    """

    folder: Path
    content: Path  # the folder itself, or one above it
    encoding: str | None
    example: str


def unpacked(archive: Path, cache_dir: str, encoding: str | None = None) -> Unpacked:
    """Unpacks the archive below `cache_dir` the first time.

    If everything lies in one folder that holds no images directly, the result has that folder. If `encoding` is None,
    it is detected. Raises `UserError` for an archive that is damaged or encrypted, that holds a link, that holds a path
    leading out of the archive, or in which a name is not in `encoding`.
    """
    check_encoding(encoding)
    stat = archive.stat()
    identity = {"archive": str(archive.resolve()), "size": stat.st_size, "changed": stat.st_mtime_ns}
    if encoding is not None:
        identity["encoding"] = encoding

    def stage(identity: dict[str, Any]) -> Path:
        return StageCache(cache_dir).get("archives", identity, lambda aside: _unpack(archive, aside, encoding))

    top = stage(identity)
    if not (top / NAMES).is_file() and not _all_ascii(top / CONTENT):  # an older version read such names differently
        top = stage(identity | {"names": "decoded"})
    said = json.loads((top / NAMES).read_text(encoding="utf-8")) if (top / NAMES).is_file() else {}
    folder = top / CONTENT
    while not holds_images(folder) and len(inside := subfolders(folder)) == 1 and not holds_images(folder / inside[0]):
        folder = folder / inside[0]
    return Unpacked(folder, top / CONTENT, said.get("encoding"), said.get("example", ""))


def _all_ascii(folder: Path) -> bool:
    return all(name.isascii() for _, folders, files in os.walk(folder) for name in (*folders, *files))


def _unpack(archive: Path, top: Path, encoding: str | None) -> None:
    folder = top / CONTENT
    folder.mkdir()
    try:
        if (why := placeholder(archive)) is not None:
            raise UserError(f"dataset.root={archive}: {why}")
        if archive.name.lower().endswith(".zip"):
            with zipfile.ZipFile(archive) as opened:
                _check_room(archive, folder, sum(member.file_size for member in opened.infolist()))
                names = _names(archive, top, [_zip_name(member) for member in opened.infolist()], encoding)
                _write(archive, folder, _zip_files(archive, opened, names))
        else:
            # Names that are not UTF-8 keep their bytes as surrogates, whatever the encoding of this system is.
            with tarfile.open(archive, encoding=UTF8, errors="surrogateescape") as opened:
                names = _names(archive, top, [_tar_name(member) for member in opened.getmembers()], encoding)
                _write(archive, folder, _tar_files(archive, opened, names))
                _check_end(archive, opened)
    except UnicodeError as error:
        raise UserError(
            f"dataset.root={archive}: cannot unpack it (it flags a name as UTF-8 that is not: {error})"
        ) from None
    except (zipfile.BadZipFile, tarfile.TarError, EOFError, zlib.error, RuntimeError, NotImplementedError) as error:
        raise UserError(f"dataset.root={archive}: cannot unpack it ({first_line(error)})") from None
    except PermissionError as error:
        raise UserError(f"dataset.root={archive}: cannot unpack it (permission denied: {error.filename})") from None
    except OSError as error:  # a name that is too long once it is UTF-8, a name of a file and a folder, a full disk
        reason = error.strerror or first_line(error)
        raise UserError(f"dataset.root={archive}: cannot unpack it ({reason})") from error


def _names(archive: Path, top: Path, names: list[RawName], encoding: str | None) -> list[str]:
    """The decoded names. The assumed encoding is recorded in the file `NAMES`."""
    try:
        texts, assumed = decoded(names, encoding)
    except UnicodeError as error:
        name = getattr(error, "object", b"")
        raise UserError(
            f"dataset.archive_encoding={encoding} is not allowed: {archive} holds a name that is not in this encoding, "
            f"{name!r}"
        ) from None
    examples = (text for name, text in zip(names, texts, strict=True) if name.text is None)
    said = {"encoding": assumed, "example": next(examples, "")}
    (top / NAMES).write_text(json.dumps(said), encoding="utf-8")
    return texts


def _zip_name(member: zipfile.ZipInfo) -> RawName:
    """A member's name. Without a flag or a field that says UTF-8, `zipfile` has decoded its bytes as cp437."""
    text = member.filename
    if text.isascii() or member.flag_bits & ZIP_UTF8:
        return RawName(b"", text)
    raw = text.encode(STANDARD)
    return RawName(raw, _unicode_path(member.extra, raw))


def _unicode_path(extra: bytes, raw: bytes) -> str | None:
    """The UTF-8 name in the extra field of Info-ZIP, if it belongs to the name `raw`."""
    place = 0
    while place + 4 <= len(extra):
        kind, size = struct.unpack_from("<HH", extra, place)
        field = extra[place + 4 : place + 4 + size]
        if kind == UNICODE_PATH and len(field) > 5 and struct.unpack_from("<L", field, 1)[0] == zlib.crc32(raw):
            return field[5:].decode(UTF8, "replace")
        place += 4 + size
    return None


def _tar_name(member: tarfile.TarInfo) -> RawName:
    """A member's name. Its encoding is said only in the format of POSIX (2001), where it is UTF-8."""
    name = member.name
    said = name.isascii() or ("path" in member.pax_headers and "hdrcharset" not in member.pax_headers)
    return RawName(b"", name) if said else RawName(name.encode(UTF8, "surrogateescape"))


def _zip_files(archive: Path, opened: zipfile.ZipFile, names: list[str]) -> Iterator[tuple[str, BinaryIO]]:
    for member, name in zip(opened.infolist(), names, strict=True):
        kind = member.external_attr >> 28  # the file type bits of the Unix mode; 0 if the archive has none
        if kind not in (0, 0o4, 0o10):
            raise UserError(f"dataset.root={archive}: it holds a link or device, {name!r}: unpack it yourself")
        if not member.is_dir():
            with opened.open(member) as content:
                yield name, content


def _tar_files(archive: Path, opened: tarfile.TarFile, names: list[str]) -> Iterator[tuple[str, BinaryIO]]:
    for member, name in zip(opened.getmembers(), names, strict=True):
        if not (member.isfile() or member.isdir()):
            raise UserError(f"dataset.root={archive}: it holds a link or device, {name!r}: unpack it yourself")
        if member.isfile():
            with opened.extractfile(member) as content:
                yield name, content


def _check_end(archive: Path, opened: tarfile.TarFile) -> None:
    """Raises `UserError` if the members do not end with an end mark: `tarfile` takes a broken header for the end.

    Reading on to the end of the file also checks the sum of a compressed archive.
    """
    opened.fileobj.seek(opened.offset)
    mark = opened.fileobj.read(tarfile.BLOCKSIZE)
    while opened.fileobj.read(2**20):
        pass
    if mark != bytes(tarfile.BLOCKSIZE):
        raise UserError(
            f"dataset.root={archive}: it is cut short or damaged: after {counted(len(opened.getmembers()), 'file')}, its "
            "end mark is missing (if these are all, unpack it yourself, and give the folder)"
        )


def _write(archive: Path, folder: Path, files: Iterator[tuple[str, BinaryIO]]) -> None:
    for name, content in files:
        place = PurePosixPath(name.replace("\\", "/"))
        outside = place.is_absolute() or ".." in place.parts or not place.parts or place.parts[0].endswith(":")
        if outside or "\0" in name:
            raise UserError(f"dataset.root={archive}: it holds a path that leads out of it, {name!r}")
        if any(part.startswith(".") or part == "__MACOSX" for part in place.parts):
            continue
        target = folder.joinpath(*place.parts)
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            file = open(target, "wb")  # noqa: SIM115, only what opening it raises is about its name
        except PermissionError:
            raise
        except (OSError, UnicodeError) as error:
            why = getattr(error, "strerror", None) or first_line(error)
            raise UserError(
                f"dataset.root={archive}: it holds a file whose name this file system cannot hold ({why}), {name!r}: "
                "unpack it yourself under shorter or other names, and give the folder"
            ) from None
        with file:
            shutil.copyfileobj(content, file)


def _check_room(archive: Path, folder: Path, size: int) -> None:
    free = shutil.disk_usage(folder).free
    if size > free:
        raise UserError(
            f"dataset.root={archive}: unpacked, it takes {size:,} bytes, but only {free:,} are free in {folder.parent}"
        )
