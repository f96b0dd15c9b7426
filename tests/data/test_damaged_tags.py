"""An image whose tags are damaged is read, turned upright where its orientation can be read; damaged pixels stay damaged."""

import io
import struct
import zlib

import numpy as np
import pytest
from pictures import jpeg_of, picture
from PIL import Image, features

from distdiff.data.cache.examined import Seen
from distdiff.data.examining import _content
from distdiff.data.reading.decoding import Facts, UnreadableImage, facts_of, open_image, read_image, read_square, to_rgb
from distdiff.data.reading.options import ReadingOptions
from distdiff.data.reading.tags import upright_size, without_tags

pytestmark = pytest.mark.filterwarnings("ignore:::PIL")  # Pillow warns about the tags; commands hide this
PICTURE = picture(48, 32)
ASCII, SHORT, LONG, RATIONAL, UNDEFINED, SIGNED_LONG, SIGNED_RATIONAL, FLOAT = 2, 3, 4, 5, 7, 9, 10, 11
SIX = (0x0112, SHORT, 1, struct.pack("<HH", 6, 0))  # the entry that turns an image by 90 degrees clockwise
INCH = (0x0128, SHORT, 1, struct.pack("<HH", 2, 0))
XMP = b'<x tiff:Orientation="6"/>'
FAR = struct.pack("<L", 10**7)  # an offset beyond the end of every file


def exif(*entries: tuple[int, int, int, bytes], count: int | None = None) -> bytes:
    """An EXIF block of these tags (tag, type, count, value), and eight bytes after them: the rational -1/0."""
    head = b"II*\0" + struct.pack("<LH", 8, len(entries) if count is None else count)
    return head + b"".join(struct.pack("<HHL4s", *entry) for entry in entries) + bytes(4) + struct.pack("<ll", -1, 0)


def resolution(kind: int, count: int, value: bytes | None = None) -> bytes:
    """Orientation 6 beside an XResolution of this type. Without a `value`, it is the rational after the tags."""
    return exif(SIX, (0x011A, kind, count, struct.pack("<L", 10 + 36 + 4) if value is None else value), INCH)


DAMAGED = {  # EXIF blocks, and whether an orientation can be read in them
    "zeros": (bytes(32), False),
    "stray bytes": (b"\1\2\3\4\5\6\7\x08", False),
    "nothing": (b"", False),
    "cut header": (b"II*\0", False),
    "cut directory": (exif(SIX, (0x011A, RATIONAL, 1, FAR), count=9)[:-14], True),
    "negative rational": (resolution(SIGNED_RATIONAL, 1), True),
    "text as resolution": (resolution(ASCII, 2, b"a\0\0\0"), True),
    "empty resolution": (resolution(ASCII, 1, bytes(4)), True),
    "bytes as resolution": (resolution(UNDEFINED, 4, b"abcd"), True),
    "not a number": (resolution(FLOAT, 1, struct.pack("<f", float("nan"))), True),
    "negative number": (exif((0x0100, SIGNED_LONG, 1, struct.pack("<l", -5)), SIX), True),
    "text elsewhere": (exif((0x010F, ASCII, 9, FAR), SIX), True),
    "directory elsewhere": (exif(SIX, (0x8769, LONG, 1, FAR)), True),
    "orientation in words": (exif((0x0112, ASCII, 2, b"6\0\0\0")), False),
    "orientation 99": (exif((0x0112, SHORT, 1, struct.pack("<HH", 99, 0))), False),
}


def encoded(kind: str, **options: object) -> bytes:
    stream = io.BytesIO()
    PICTURE.save(stream, kind, **options)
    return stream.getvalue()


def segment(marker: int, content: bytes) -> bytes:
    return b"\xff" + bytes([marker]) + struct.pack(">H", 2 + len(content)) + content


def jpeg(*segments: bytes, kind: str = "JPEG", **options: object) -> bytes:
    """A JPEG with these segments after its own JFIF segment, which gives a resolution in dots an inch."""
    whole = encoded(kind, quality=100, subsampling=0, dpi=(72, 72), **options)
    end = whole.index(b"\xff\xdb")
    return whole[:end] + b"".join(segments) + whole[end:]


def exif_segment(block: bytes) -> bytes:
    return segment(0xE1, b"Exif\0\0" + block)


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">L", len(content)) + kind + content + struct.pack(">L", zlib.crc32(kind + content))


def png(*chunks: bytes) -> bytes:
    whole = encoded("PNG")
    return whole[:33] + b"".join(chunks) + whole[33:]


def tiff(*entries: tuple[int, int, int, bytes], **options: object) -> bytes:
    """A TIFF with these tags added to or changed in its directory, which then lies at the end."""
    whole = encoded("TIFF", **options)
    (start,) = struct.unpack_from("<L", whole, 4)
    (count,) = struct.unpack_from("<H", whole, start)
    found = [struct.unpack_from("<HHL4s", whole, start + 2 + 12 * number) for number in range(count)]
    tags = {entry[0]: entry for entry in (*found, *entries)}
    whole += bytes(len(whole) % 2)
    listed = b"".join(struct.pack("<HHL4s", *tags[tag]) for tag in sorted(tags))
    return whole[:4] + struct.pack("<L", len(whole)) + whole[8:] + struct.pack("<H", len(tags)) + listed + bytes(4)


def assert_read(content: bytes, turned: bool) -> None:
    """The pixels are those of `PICTURE`, turned upright if `turned`, in each way of reading."""
    expected = PICTURE.rotate(-90, expand=True) if turned else PICTURE
    found = read_image(io.BytesIO(content), "image")
    assert found.size == expected.size
    assert np.abs(np.asarray(found).astype(int) - np.asarray(expected)).max() <= 8
    square = np.asarray(read_square(io.BytesIO(content), 8, "squash", "image")).astype(int)
    assert np.abs(square - np.asarray(expected.resize((8, 8), Image.Resampling.LANCZOS))).max() <= 16
    assert not facts_of(io.BytesIO(content), "image").transparent
    with open_image(io.BytesIO(content)) as image:
        assert upright_size(image) == expected.size


@pytest.mark.parametrize("name", DAMAGED)
def test_damaged_exif_costs_no_image_and_no_orientation_that_can_be_read(name: str) -> None:
    block, turned = DAMAGED[name]
    assert_read(jpeg(exif_segment(block)), turned)
    assert_read(jpeg(exif_segment(block)).replace(b"JFIF\0\1\1\1", b"JFIF\0\1\1\0"), turned)  # without a resolution
    assert_read(jpeg(exif_segment(block), kind="MPO", save_all=True, append_images=[PICTURE]), turned)
    assert_read(png(chunk(b"eXIf", block)), turned)
    assert_read(png(chunk(b"tEXt", b"Raw profile type exif\0\nexif\n8\n" + block.hex().encode())), turned)
    assert_read(encoded("WEBP", lossless=True, exif=block), turned)


@pytest.mark.parametrize("lossless", [True, False])
@pytest.mark.parametrize("alpha", [True, False])
def test_a_webp_with_a_cut_tag_or_a_wrong_size_is_read(alpha: bool, lossless: bool) -> None:
    stream = io.BytesIO()
    image = PICTURE.copy()
    if alpha:
        image.putalpha(Image.linear_gradient("L").resize(PICTURE.size))
    image.save(stream, "WEBP", lossless=lossless, quality=100, exif=exif(SIX))
    whole = stream.getvalue()
    expected = read_image(io.BytesIO(whole), "whole")
    assert expected.size == (32, 48)
    sizes = (len(whole) + 90, 2**32 - 2, 30, 0)
    for content in (whole[:-4], *(whole[:4] + struct.pack("<L", size) + whole[8:] for size in sizes)):
        assert np.array_equal(read_image(io.BytesIO(content), "damaged"), expected)
    with pytest.raises(UnreadableImage, match=r"it is damaged \("):
        read_image(io.BytesIO(whole[:200]), "cut")


def test_a_file_with_a_known_beginning_is_called_damaged() -> None:
    for start in (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0", b"GIF89a", b"II*\0", b"RIFF\0\0\0\0WEBP"):
        with pytest.raises(UnreadableImage, match="it is damaged"):
            read_image(io.BytesIO(start + b"junk" * 9), "junk")


@pytest.mark.skipif(not features.check("avif"), reason="this Pillow was built without AVIF")
def test_damaged_exif_in_an_avif_costs_no_image() -> None:
    whole = encoded("AVIF", quality=100, subsampling="4:4:4", exif=exif((0x010E, ASCII, 4, b"abcd")))
    assert_read(whole.replace(b"II*\0", b"zzzz"), turned=False)


@pytest.mark.parametrize(
    "damaged",
    [
        segment(0xE0, b"JFIF"),
        segment(0xEE, b"Adobe"),
        segment(0xE2, b"ICC_PROFILE\0\1"),
        segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0\xff\xfe\0"),
        segment(0xE2, b"MPF\0" + exif((0xB001, LONG, 1, struct.pack("<L", 3)))),
        segment(0xED, b"Photoshop 3.0\x008BIM\x03\xed"),
    ],
)
def test_a_jpeg_with_a_damaged_segment_of_tags_is_read(damaged: bytes) -> None:
    assert_read(jpeg(damaged), turned=False)
    assert_read(jpeg(exif_segment(exif(SIX)), damaged), turned=True)


@pytest.mark.parametrize(
    "damaged",
    [
        chunk(b"iCCP", b"name\0\1zzz"),
        chunk(b"iCCP", b""),
        *(chunk(kind, b"") for kind in (b"gAMA", b"cHRM", b"sRGB", b"pHYs", b"acTL")),
        *(chunk(kind, b"a")[:-1] + b"?" for kind in (b"cICP", b"mDCV", b"cLLI", b"iDOT", b"vpAg", b"oFFs", b"caBX")),
        *(chunk(kind, b"a")[:-1] + b"?" for kind in (b"pCAL", b"sCAL", b"sTER", b"gIFg", b"gIFx", b"dSIG")),
        chunk(b"acTL", struct.pack(">LL", 2, 0)) + chunk(b"fcTL", b"short"),
        chunk(b"zTXt", b"key\0\7abc"),
        chunk(b"zTXt", b"key\0\0" + zlib.compress(bytes(2**21))),
        chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0\xff\xfe"),
        *(chunk(b"tEXt", key + b"\0abc") for key in (b"transparency", b"interlace", b"bbox", b"xmp")),
        chunk(b"tEXt", b"key\0text")[:-1] + b"?",  # a wrong checksum
    ],
)
def test_a_png_with_a_damaged_chunk_of_tags_is_read(damaged: bytes) -> None:
    assert_read(png(damaged), turned=False)
    assert_read(png(chunk(b"eXIf", exif(SIX)), damaged), turned=True)
    whole = encoded("PNG")
    assert_read(whole[:-12] + damaged + whole[-12:], turned=False)  # after the pixels


@pytest.mark.parametrize("options", [{}, {"compression": "tiff_lzw"}])
@pytest.mark.parametrize(
    "damaged",
    [
        [(282, ASCII, 2, b"a\0\0\0"), (283, ASCII, 2, b"a\0\0\0"), (296, SHORT, 1, struct.pack("<HH", 3, 0))],
        [(282, RATIONAL, 1, FAR)],
        [(270, ASCII, 99, FAR)],
        [(700, SHORT, 1, struct.pack("<HH", 3, 0))],
        [(34675, ASCII, 4, b"junk")],
        [(34665, ASCII, 4, b"junk"), (34853, LONG, 1, FAR), (330, LONG, 1, FAR)],
    ],
)
def test_a_tiff_with_a_damaged_tag_is_read(damaged: list, options: dict) -> None:
    assert_read(tiff(*damaged, **options), turned=False)
    assert_read(tiff(*damaged, SIX, **options), turned=True)


def test_an_orientation_in_xmp_is_read_beside_damaged_exif() -> None:
    assert_read(jpeg(exif_segment(bytes(32)), segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0" + XMP)), turned=True)
    assert_read(png(chunk(b"eXIf", b"8 bytes!"), chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + XMP)), turned=True)
    assert_read(encoded("WEBP", lossless=True, exif=b"8 bytes!", xmp=XMP), turned=True)


def test_a_large_jpeg_with_damaged_exif_is_reduced_and_turned_as_it_is_whole() -> None:
    large = picture(803, 397)
    whole = jpeg_of(large).getvalue()
    damaged = whole[:20] + exif_segment(resolution(SIGNED_RATIONAL, 1)) + whole[20:]
    expected = jpeg_of(large, exif=_six())
    for fit in ("crop", "squash", "pad"):
        found = read_square(io.BytesIO(damaged), 32, fit, "large")
        assert np.array_equal(found, read_square(expected, 32, fit))


def test_an_image_of_a_notebook_with_damaged_tags_is_turned_too() -> None:
    image = Image.open(io.BytesIO(png(chunk(b"eXIf", resolution(SIGNED_RATIONAL, 1)))))
    assert to_rgb(image).size == (32, 48)


@pytest.mark.parametrize(
    "whole",
    [jpeg(exif_segment(bytes(32)), segment(0xE0, b"JFIF")), png(chunk(b"gAMA", b"")), tiff((700, SHORT, 1, bytes(4)))],
)
def test_cut_or_changed_pixels_stay_damaged_beside_damaged_tags(whole: bytes) -> None:
    assert read_image(io.BytesIO(whole), "whole").size == PICTURE.size
    for end in range(len(whole) * 2 // 3, len(whole) - 200, 97):
        with pytest.raises(UnreadableImage, match=r"damaged|no image"):
            read_image(io.BytesIO(whole[:end]), "cut")


def test_a_png_chunk_that_is_no_tag_must_have_its_checksum() -> None:
    whole = bytearray(png(chunk(b"gAMA", b"")))
    whole[whole.index(b"IDAT") + 40] ^= 1
    with pytest.raises(UnreadableImage):
        read_image(io.BytesIO(whole), "flipped")
    with pytest.raises(UnreadableImage):
        read_image(io.BytesIO(png(chunk(b"prVt", b"private")[:-1] + b"?")), "private")


def test_files_of_other_formats_are_not_rewritten(tmp_path) -> None:
    assert without_tags(io.BytesIO(encoded("GIF"))) is None
    assert without_tags(tmp_path / "missing.png") is None
    assert without_tags(tmp_path) is None


def _six() -> Image.Exif:
    six = Image.Exif()
    six[0x0112] = 6
    return six


def test_an_orientation_that_pillow_does_not_find_changes_the_identity_of_the_image_alone() -> None:
    """Earlier versions read such an image as it lay, so that what they cached is not used."""
    elsewhere, _ = DAMAGED["text elsewhere"]
    assert facts_of(io.BytesIO(jpeg(exif_segment(elsewhere))), "image").rescued
    assert not facts_of(io.BytesIO(jpeg(exif_segment(exif(SIX)))), "image").rescued
    assert not facts_of(io.BytesIO(encoded("PNG")), "image").rescued
    seen = [Seen("content", Facts(rescued=rescued)) for rescued in (False, True)]
    assert len({_content(each, ReadingOptions()) for each in seen}) == 2
