"""Reads the orientation from an image's tags, however damaged they are, and removes tags that keep a file from opening.

Pillow reads tags that change no pixel (text, resolution, colour profile, XMP, EXIF) when it opens and when it decodes a
file, and raises any exception if they are damaged.
"""

import io
import re
import struct
import zlib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from PIL import ExifTags, Image

ORIENTATION = int(ExifTags.Base.Orientation)
UPRIGHT = 1
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
XMP = re.compile(rb'tiff:Orientation(?:="|>)([1-8])')
JPEG, PNG, AVIF = b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"ftypavi"
EXIF = b"Exif\0\0"
PNG_TAGS = frozenset(
    b"tEXt zTXt iTXt eXIf iCCP cICP mDCV cLLI gAMA cHRM sRGB pHYs pCAL sCAL sTER oFFs vpAg tIME sBIT hIST sPLT bKGD "
    b"gIFg gIFx caBX dSIG iDOT acTL fcTL fdAT".split()  # the last three are of an animation
)
# The TIFF tags that say where and how the pixels are stored, and which colours they have.
TIFF_PIXELS = frozenset(
    (254, 255, 256, 257, 258, 259, 262, 266, 273, 277, 278, 279, 284, 292, 293, 317, 320, 322, 323, 324, 325, 332, 334)
) | frozenset((338, 339, 347, 512, 513, 514, 515, 517, 518, 519, 520, 521, 529, 530, 531, 532, 32997, 32998))
WEBP_ALPHA, WEBP_EXIF = 0x10, 0x08  # flags in the first chunk of a WebP
TIFF_XMP = 700  # it may hold the orientation
BYTE, SHORT, LONG, UNDEFINED = 1, 3, 4, 7  # types of tags


def orientation(image: Image.Image) -> int:
    """The EXIF orientation of an image, 1 (upright) to 8. It is 1 if no orientation can be read."""
    found = _found_by_pillow(image)
    return lost_orientation(image) if found is None else found


def lost_orientation(image: Image.Image) -> int:
    """The orientation of an image in whose tags Pillow finds none because other tags are damaged, otherwise 1."""
    if _found_by_pillow(image) is not None:
        return UPRIGHT
    exif = _as_bytes(image.info, "exif") or _from_hex(_as_bytes(image.info, "Raw profile type exif"))
    return _in_exif(exif) or _in_xmp(_as_bytes(image.info, "xmp", "XML:com.adobe.xmp")) or UPRIGHT


def upright(image: Image.Image, turned: int) -> Image.Image:
    """The image turned upright, where `turned` is its orientation.

    `ImageOps.exif_transpose` would encode all tags again, and fails if it cannot.
    """
    return image.transpose(TURNS[turned]) if turned in TURNS else image


def upright_size(image: Image.Image) -> tuple[int, int]:
    """(width, height) that an image which is not decoded yet has once it is turned upright."""
    swapped = orientation(image) in range(5, 9) and image.format != "TIFF"  # Pillow gives a TIFF's upright size
    return image.size[::-1] if swapped else image.size


def without_tags(file: Path | str | BinaryIO) -> io.BytesIO | None:
    """A copy of a JPEG, PNG, WebP, TIFF or AVIF file without the tags that change no pixel, except the orientation.

    The result is None for files of other formats, and if the file is damaged outside of its tags.
    """
    try:
        if isinstance(file, (str, Path)):
            content = Path(file).read_bytes()
        else:
            file.seek(0)
            content = file.read()
        if content.startswith(JPEG):
            return io.BytesIO(_bare_jpeg(content))
        if content.startswith(PNG):
            return io.BytesIO(_bare_png(content))
        if content[:4] == b"RIFF" and content[8:12] == b"WEBP":
            return io.BytesIO(_bare_webp(content))
        if content[:4] in (b"II*\0", b"MM\0*"):
            return io.BytesIO(_bare_tiff(content))
        if content[4:11] == AVIF:  # its orientation is a property of the picture, not a tag
            return io.BytesIO(re.sub(rb"(infe[\x02\x03]...(?:..){2,3})Exif", rb"\1skip", content, flags=re.DOTALL))
    except (OSError, ValueError, struct.error, IndexError):
        return None
    return None


def _found_by_pillow(image: Image.Image) -> int | None:
    """The orientation that Pillow reads, 1 if the value is not allowed, or None if Pillow finds none."""
    with suppress(Exception):  # damaged tags can make Pillow raise any exception
        value = image.getexif().get(ORIENTATION)
        return value if value is None else value if value in TURNS else UPRIGHT
    return None


def _as_bytes(info: dict, *names: str) -> bytes:
    """The first of the entries `names` in `info` that is text or bytes, as bytes."""
    for name in names:
        value = info.get(name)
        if isinstance(value, str):
            return value.encode("utf-8", "replace")
        if isinstance(value, bytes):
            return value
    return b""


def _from_hex(profile: bytes) -> bytes:
    """The bytes of a profile that a PNG holds as text: a line with its kind, one with its length, then hex digits."""
    with suppress(ValueError):
        return bytes.fromhex(b"".join(profile.split(b"\n")[3:]).decode("ascii"))
    return b""


def _in_xmp(xmp: bytes) -> int | None:
    match = XMP.search(xmp)
    return None if match is None else int(match[1])


def _in_exif(exif: bytes) -> int | None:
    """The orientation in an EXIF block, or None if it cannot be read. Nothing but the orientation's entry is read."""
    exif = re.sub(b"^(?:Exif\0\0)+", b"", exif)
    order = {b"II": "<", b"MM": ">"}.get(exif[:2])
    if order is None or len(exif) < 8:
        return None
    (start,) = struct.unpack_from(f"{order}L", exif, 4)
    for tag, kind, count, value in _entries(exif, order, start):
        if tag == ORIENTATION:
            found = struct.unpack(f"{order}{'H' if kind == SHORT else 'L'}", value[: 2 if kind == SHORT else 4])[0]
            return found if kind in (SHORT, LONG) and count and found in (UPRIGHT, *TURNS) else None
    return None


def _entries(content: bytes, order: str, start: int) -> Iterator[tuple[int, int, int, bytes]]:
    """(tag, type, count, value or offset) of the entries in a directory of tags, as far as it reaches."""
    if start + 2 > len(content):
        return
    (count,) = struct.unpack_from(f"{order}H", content, start)
    for place in range(start + 2, min(start + 2 + 12 * count, len(content) - 11), 12):
        yield struct.unpack_from(f"{order}HHL4s", content, place)


def _orientation_exif(turned: int) -> bytes:
    exif = Image.Exif()
    exif[ORIENTATION] = turned
    return exif.tobytes()


def _bare_jpeg(content: bytes) -> bytes:
    """Leaves out the segments of tags. Raises `ValueError` if the segments before the pixels are damaged.

    The markers JFIF and Adobe stay, because they say what the colours mean.
    """
    kept, exif, xmp, place = [content[:2]], b"", b"", 2
    while True:
        while content[place : place + 2] == b"\xff\xff":  # fill bytes
            place += 1
        if content[place] != 0xFF:
            raise ValueError("no marker")
        marker = content[place + 1]
        if marker == 0xDA:  # start of the pixels
            break
        size = 2 + struct.unpack_from(">H", content, place + 2)[0]
        segment = content[place : place + size]
        if size < 4 or len(segment) < size:
            raise ValueError("cut off")
        if not (0xE0 <= marker <= 0xEF or marker == 0xFE) or _tells_colours(marker, segment):
            kept.append(segment)
        elif segment[4:].startswith(EXIF):
            exif += segment[10:] if exif else segment[4:]
        elif marker == 0xE1:
            xmp += segment
        place += size
    if turned := _in_exif(exif) or _in_xmp(xmp):
        block = _orientation_exif(turned)
        kept.append(b"\xff\xe1" + struct.pack(">H", 2 + len(block)) + block)
    return b"".join([*kept, content[place:]])


def _tells_colours(marker: int, segment: bytes) -> bool:
    """Whether a segment is a whole JFIF or Adobe marker."""
    jfif = marker == 0xE0 and segment[4:9] == b"JFIF\0" and len(segment) >= 18
    return jfif or (marker == 0xEE and segment[4:9] == b"Adobe" and len(segment) >= 16)


def _bare_png(content: bytes) -> bytes:
    """Leaves out the chunks of tags and of further frames. Raises `ValueError` if a chunk is cut off."""
    header, exif, xmp, place = [], b"", b"", len(PNG)
    rest = []
    while place < len(content):
        (size,) = struct.unpack_from(">L", content, place)
        kind, data = content[place + 4 : place + 8], content[place + 8 : place + 8 + size]
        if place + 12 + size > len(content):
            raise ValueError("cut off")
        if kind not in PNG_TAGS:
            (rest if header else header).append(content[place : place + 12 + size])
        elif kind == b"eXIf":
            exif = data
        elif kind == b"iTXt":
            xmp += data
        place += 12 + size
        if kind == b"IEND":
            break
    if turned := _in_exif(exif) or _in_xmp(xmp):
        block = b"eXIf" + _orientation_exif(turned).removeprefix(EXIF)
        header.append(struct.pack(">L", len(block) - 4) + block + struct.pack(">L", zlib.crc32(block)))
    return b"".join([PNG, *header, *rest])


def _bare_webp(content: bytes) -> bytes:
    """Leaves out all chunks but those of the pixels, and writes the size of the file anew.

    Raises `ValueError` for an animation, and if a chunk of the pixels is cut off or there is none.
    """
    kept, canvas, exif, xmp, place = [], b"", b"", b"", 12
    while place + 8 <= len(content):
        kind, (size,) = content[place : place + 4], struct.unpack_from("<L", content, place + 4)
        data = content[place + 8 : place + 8 + size]
        if kind in (b"ANIM", b"ANMF"):
            raise ValueError("an animation")
        if kind in (b"VP8 ", b"VP8L", b"ALPH", b"VP8X") and len(data) < size:
            raise ValueError("cut off")
        if kind == b"VP8X":
            canvas = data
        elif kind in (b"VP8 ", b"VP8L", b"ALPH"):
            kept.append((kind, data))
        elif kind == b"EXIF":
            exif = data
        elif kind == b"XMP ":
            xmp = data
        place += 8 + size + size % 2
    if not any(kind != b"ALPH" for kind, _ in kept):
        raise ValueError("no pixels")
    if canvas:  # its first byte says which other chunks there are
        turned = _in_exif(exif) or _in_xmp(xmp)
        flags = (canvas[0] & WEBP_ALPHA) | (WEBP_EXIF if turned else 0)
        kept.insert(0, (b"VP8X", bytes([flags]) + canvas[1:]))
        if turned:
            kept.append((b"EXIF", _orientation_exif(turned).removeprefix(EXIF)))
    chunks = b"".join(kind + struct.pack("<L", len(data)) + data + bytes(len(data) % 2) for kind, data in kept)
    return b"RIFF" + struct.pack("<L", 4 + len(chunks)) + b"WEBP" + chunks


def _bare_tiff(content: bytes) -> bytes:
    """Shortens the first directory to the tags that describe the pixels, and ends the file with the first image."""
    order = "<" if content[:2] == b"II" else ">"
    (start,) = struct.unpack_from(f"{order}L", content, 4)
    kept = [
        struct.pack(f"{order}HHL4s", *entry)
        for entry in _entries(content, order, start)
        if entry[0] in TIFF_PIXELS
        or (entry[0] == ORIENTATION and entry[1] in (SHORT, LONG) and entry[2] == 1)
        or (entry[0] == TIFF_XMP and entry[1] in (BYTE, UNDEFINED))
    ]
    directory = struct.pack(f"{order}H", len(kept)) + b"".join(kept) + bytes(4)
    return content[:start] + directory + content[start + len(directory) :]
