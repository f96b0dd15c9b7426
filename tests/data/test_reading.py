"""What a user's image files may be: every kind of pixels comes out as seen, every damage is one line with its reason."""

import io
import pickle
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from distdiff.data.reading import decoding as reading
from distdiff.data.reading.decoding import UnreadableImage, read_image, to_rgb
from distdiff.errors import UserError


def saved(image: Image.Image, path: Path, **options: object) -> Path:
    image.save(path, **options)
    return path


def grey(path: Path) -> np.ndarray:
    """The grey levels of an image that must have come out without colour."""
    pixels = np.asarray(read_image(path)).astype(int)
    assert (pixels == pixels[..., :1]).all()
    return pixels[..., 0]


@pytest.fixture
def picture() -> Image.Image:
    """Smooth colours, 48 wide and 32 high, so that JPEG loses little."""
    rows, columns = np.mgrid[0:32, 0:48]
    return Image.fromarray(np.stack([columns * 5, rows * 7, 255 - columns * 2 - rows * 3], -1).astype(np.uint8))


@pytest.mark.parametrize("suffix", [".png", ".tif", ".pgm"])
def test_sixteen_bits_of_grey_are_scaled_not_clipped(suffix: str, tmp_path: Path) -> None:
    ramp = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    found = grey(saved(Image.fromarray(ramp), tmp_path / f"ramp{suffix}"))
    expected = np.rint(ramp / 257).astype(int)  # 65535 / 255
    assert np.abs(found - expected).max() == 0


def test_integers_beyond_sixteen_bits_are_stretched_and_floats_are_fractions_or_levels(tmp_path: Path) -> None:
    for values, expected in [
        (np.array([[-100_000, 0, 100_000]], np.int32), [0, 128, 255]),
        (np.array([[0.0, 0.5, 1.0]], np.float32), [0, 128, 255]),
        (np.array([[0.0, 40.0, 200.0]], np.float32), [0, 40, 200]),
        (np.array([[-1.0, 0.0, 1.0]], np.float32), [0, 128, 255]),
        (np.array([[7.0, 7.0, 7.0]], np.float32), [7, 7, 7]),
        (np.array([[-7.0, -7.0, -7.0]], np.float32), [0, 0, 0]),
    ]:
        path = saved(Image.fromarray(values), tmp_path / "values.tif")
        assert grey(path)[0].tolist() == expected
    with pytest.raises(UnreadableImage, match="not finite"):
        read_image(saved(Image.fromarray(np.array([[np.nan, 1]], np.float32)), path))


def test_an_image_is_turned_upright(picture: Image.Image, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    path = saved(picture, tmp_path / "turned.png", exif=exif)
    assert np.array_equal(read_image(path), picture.rotate(-90, expand=True))


def test_a_cmyk_jpeg_has_the_colours_of_its_rgb_twin(picture: Image.Image, tmp_path: Path) -> None:
    """Pillow writes and reads them inverted, as Adobe's programs do."""
    path = saved(picture.convert("CMYK"), tmp_path / "print.jpg", quality=100, subsampling=0)
    assert b"Adobe" in path.read_bytes()
    found = np.asarray(read_image(path)).astype(int)
    assert np.abs(found - np.asarray(picture).astype(int)).max() < 8


def test_what_is_transparent_shows_the_background(picture: Image.Image, tmp_path: Path) -> None:
    alpha = picture.copy()
    alpha.putalpha(Image.fromarray(np.repeat([[0, 128, 255]], 32, 0).repeat(16, 1).astype(np.uint8)))
    found = np.asarray(read_image(saved(alpha, tmp_path / "alpha.png"))).astype(int)
    colours = np.asarray(picture).astype(int)
    assert (found[:, :16] == 255).all()
    assert np.abs(found[:, 16:32] - (colours * 128 + 255 * 127)[:, 16:32] / 255).max() <= 1
    assert (found[:, 32:] == colours[:, 32:]).all()
    palette = picture.quantize(16)
    plain = np.asarray(read_image(saved(palette, tmp_path / "palette.gif")))
    assert np.array_equal(plain, np.asarray(palette.convert("RGB")))
    index = palette.getpixel((0, 0))
    path = saved(palette, tmp_path / "clear.png", transparency=index)
    clear = np.asarray(palette) == index
    assert clear.any()
    assert (np.asarray(read_image(path))[clear] == 255).all()
    assert np.array_equal(np.asarray(read_image(path))[~clear], plain[~clear])
    mixed = Image.merge("LA", [Image.new("L", (2, 1), 10), Image.fromarray(np.array([[0, 255]], np.uint8))])
    assert grey(saved(mixed, tmp_path / "la.png")).tolist() == [[255, 10]]


def test_one_bit_is_black_and_white_and_an_animation_its_first_frame(picture: Image.Image, tmp_path: Path) -> None:
    bits = Image.fromarray(np.eye(4, dtype=bool))
    assert np.array_equal(grey(saved(bits, tmp_path / "bits.png")), np.eye(4, dtype=int) * 255)
    frames = [Image.new("P", (5, 5), colour) for colour in (0, 1, 2)]
    for frame in frames:
        frame.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    path = saved(frames[0], tmp_path / "moving.gif", save_all=True, append_images=frames[1:])
    assert (np.asarray(read_image(path)) == (255, 0, 0)).all()
    others = [picture.rotate(180), picture.transpose(Image.Transpose.FLIP_TOP_BOTTOM)]
    for suffix in (".webp", ".png", ".tif"):
        path = saved(picture, tmp_path / f"moving{suffix}", save_all=True, append_images=others, lossless=True)
        assert np.array_equal(read_image(path), picture)


@pytest.mark.parametrize("mode", ["1", "CMYK", "F", "HSV", "I", "I;16", "L", "LA", "LAB", "P", "PA", "RGBA", "RGBa"])
def test_every_mode_comes_out_as_rgb(mode: str) -> None:
    image = to_rgb(Image.new(mode, (4, 3)))
    assert (image.mode, image.size) == ("RGB", (4, 3))


def png(width: int, height: int) -> bytes:
    """A PNG's signature and header, and data that end at once."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def encoded(picture: Image.Image, kind: str) -> bytes:
    stream = io.BytesIO()
    picture.resize((480, 320)).save(stream, kind)
    return stream.getvalue()


def half(content: bytes) -> bytes:
    return content[: len(content) // 2]


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("empty.png", lambda _: b"", "it is empty"),
        ("letter.jpg", lambda _: b"Dear committee,\n" * 9, "it is no image, or one of a format that is not known here"),
        ("half.jpg", lambda picture: half(encoded(picture, "jpeg")), r"it is damaged \(.*truncated.*\)"),
        ("half.png", lambda picture: half(encoded(picture, "png")), r"it is damaged \(.*[Tt]runcated.*\)"),
        ("flipped.png", lambda picture: half(encoded(picture, "png")) + bytes(2000), "it is damaged"),
        ("bomb.png", lambda _: png(30_000, 30_000), "it has more than 178,956,970 pixels"),
        ("script.jpg", lambda _: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "it is no image"),
    ],
)
def test_a_file_that_cannot_be_read_is_named_once_with_the_reason(
    name: str, content, reason: str, picture: Image.Image, tmp_path: Path
) -> None:
    path = tmp_path / name
    path.write_bytes(content(picture))
    with pytest.raises(UnreadableImage, match=reason) as caught:
        read_image(path)
    message = str(caught.value)
    assert isinstance(caught.value, UserError)
    assert message == f"cannot read {path}: {caught.value.reason}"
    assert message.count(name) == 1
    assert str(pickle.loads(pickle.dumps(caught.value))) == message  # it travels between ranks
    assert "\n" not in message
    with pytest.raises(UnreadableImage, match=r"^cannot read row 7: "):
        read_image(io.BytesIO(path.read_bytes()), "row 7")


def test_a_bit_that_flipped_in_a_png_is_found(picture: Image.Image) -> None:
    """Anywhere between its signature and its end, also where it decodes to an image, only a wrong one."""
    whole = encoded(picture, "png")
    for place in range(8, len(whole) - 12, 5):
        content = bytearray(whole)
        content[place] ^= 1 << place % 8
        with pytest.raises(UnreadableImage, match=r"it is damaged|it is no image"):
            read_image(io.BytesIO(content), "flipped")


def test_a_file_that_is_not_there_and_a_folder_say_so(tmp_path: Path) -> None:
    for path, reason in ((tmp_path / "gone.png", "No such file or directory"), (tmp_path, "Is a directory")):
        with pytest.raises(UnreadableImage, match=f"^cannot read {path}: {reason}$"):
            read_image(path)


def test_the_limit_is_ours_not_pillows_half_of_it(tmp_path: Path, monkeypatch) -> None:
    path = saved(Image.new("L", (100, 100), 7), tmp_path / "large.png")
    code = (
        "from PIL import Image; from distdiff.console.quiet import quiet_libraries; quiet_libraries();"
        "from distdiff.data.reading.decoding import read_image; Image.MAX_IMAGE_PIXELS = 6000;"
        f"print(read_image({str(path)!r}).size)"
    )  # where Pillow only warns
    run = subprocess.run([sys.executable, "-W", "error::Warning:PIL", "-c", code], capture_output=True, text=True)
    assert (run.stdout, run.stderr) == ("(100, 100)\n", "")
    monkeypatch.setattr(reading, "MAX_PIXELS", 9999)
    with pytest.raises(UnreadableImage, match="more than 9,999 pixels"):
        read_image(path)
