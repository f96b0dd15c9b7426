"""Odd image files such as users have: many modes and several kinds of damage."""

import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

SIDE = 256  # large enough that the damage is not in a header


def write_odd_images(folder: Path) -> list[str]:
    """Writes one file of each kind into `folder`; returns the names of the files."""
    rows, columns = np.mgrid[0:SIDE, 0:SIDE]
    picture = Image.fromarray(np.stack([columns, rows, 255 - columns // 2 - rows // 2], -1).astype(np.uint8))
    clear = picture.copy()
    clear.putalpha(Image.fromarray(columns.astype(np.uint8)))
    turned = Image.Exif()
    turned[0x0112] = 6
    made: dict[str, Callable[[Path], None]] = {
        "16-bit.png": lambda path: Image.fromarray((columns * 257).astype(np.uint16)).save(path),
        "cmyk.jpg": lambda path: picture.convert("CMYK").save(path),
        "palette.png": lambda path: picture.quantize(16).save(path),
        "palette-transparent.png": lambda path: picture.quantize(16).save(path, transparency=0),
        "alpha.png": lambda path: clear.save(path),
        "animated.gif": lambda path: picture.quantize(9).save(path, save_all=True, append_images=[picture.rotate(90)]),
        "one-bit.png": lambda path: picture.convert("1").save(path),
        "grey-alpha.png": lambda path: clear.convert("LA").save(path),
        "float.tif": lambda path: Image.fromarray(columns.astype(np.float32) / 255).save(path),
        "turned-by-exif.jpg": lambda path: picture.save(path, exif=turned),
        "truncated.jpg": lambda path: damaged(picture, path, lambda whole: whole[: len(whole) // 2]),
        "truncated.png": lambda path: damaged(picture, path, lambda whole: whole[: len(whole) // 2]),
        "corrupt.png": lambda path: damaged(picture, path, one_bit),
        "bomb-30000x30000.png": lambda path: path.write_bytes(bomb(30_000)),
        "zero-bytes.png": lambda path: path.write_bytes(b""),
        "text.jpg": lambda path: path.write_text("Dear committee,\n" * 20),
    }
    for name, write in made.items():
        write(folder / name)
    return list(made)


def damaged(picture: Image.Image, path: Path, damage: Callable[[bytes], bytes]) -> None:
    picture.save(path)
    path.write_bytes(damage(path.read_bytes()))


def one_bit(whole: bytes) -> bytes:
    middle = len(whole) // 2
    return whole[:middle] + bytes([whole[middle] ^ 16]) + whole[middle + 1 :]


def bomb(side: int) -> bytes:
    """A valid PNG of `side` x `side` black pixels that takes only about 100 kB."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    packed, row = zlib.compressobj(9), bytes(1 + side // 8)
    pixels = b"".join(packed.compress(row) for _ in range(side)) + packed.flush()
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
