"""Huge JPEGs are reduced while they are decoded, and look as if they had been decoded whole."""

import io

import numpy as np
import pytest
from pictures import jpeg_of, picture, png_of
from PIL import Image

from distdiff.data.reading import decoding as reading
from distdiff.data.reading import jpeg
from distdiff.data.reading.decoding import UnreadableImage, facts_of, read_image, read_square
from distdiff.data.reading.fit import fit_image

FITS = ("crop", "squash", "pad")


# Huge JPEGs, reduced while they are decoded


@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize("size", [(800, 600), (803, 397), (300, 901)])
def test_a_reduced_jpeg_looks_as_one_decoded_whole(size: tuple[int, int], fit: str) -> None:
    stream = jpeg_of(picture(*size))
    whole = np.asarray(fit_image(read_image(stream), 32, fit)).astype(int)
    assert (difference := np.abs(whole - np.asarray(read_square(stream, 32, fit)))).max() <= 8
    assert 0 < difference.mean() < 0.6


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_reduced_jpeg_is_turned_upright(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    for width, height, size in ((803, 397, 32), (1200, 300, 65)):  # the second has one more row of bars on one side
        stream = jpeg_of(picture(width, height), exif=exif)
        for fit in FITS:
            whole = np.asarray(fit_image(read_image(stream), size, fit)).astype(int)
            assert np.abs(whole - np.asarray(read_square(stream, size, fit))).mean() < 0.6


def test_reduced_cmyk_grey_and_mpo_keep_their_colours() -> None:
    images = [picture(640, 480).convert("CMYK"), picture(640, 480).convert("L")]
    streams = [
        *map(jpeg_of, images),
        jpeg_of(picture(640, 480), format="MPO", save_all=True, append_images=[picture(640, 480, 1)]),
    ]
    for stream in streams:
        whole = np.asarray(fit_image(read_image(stream), 48, "crop")).astype(int)
        assert np.abs(whole - np.asarray(read_square(stream, 48, "crop"))).max() <= 8
    assert Image.open(streams[2]).format == "MPO"


@pytest.mark.parametrize(
    ("fit", "size", "decoded"),
    [
        ("crop", 50, (400, 150)),
        ("squash", 50, (400, 150)),
        ("pad", 50, (100, 38)),
        ("pad", 201, (800, 300)),
        ("crop", 80, (800, 300)),
    ],
)
def test_what_counts_stays_twice_as_large_as_wanted(fit: str, size: int, decoded: tuple[int, int], monkeypatch) -> None:
    found = []
    monkeypatch.setattr(reading, "_colours", lambda image, *_: found.append(image.size) or image)
    read_square(jpeg_of(picture(800, 300)), size, fit)
    assert found == [decoded]


def test_a_huge_jpeg_is_read_and_a_huge_png_is_not(monkeypatch) -> None:
    monkeypatch.setattr(reading, "MAX_PIXELS", 90_000)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 45_000)  # at twice of it Pillow refuses the header
    image = picture(800, 600)
    assert read_image(jpeg_of(image)).size == (200, 150)
    assert read_square(jpeg_of(image), 150, "crop").size == (150, 150)
    assert not facts_of(jpeg_of(image)).transparent
    with pytest.raises(UnreadableImage, match="it has more than 90,000 pixels"):
        read_square(io.BytesIO(png_of(image)), 16, "crop", "large")
    with pytest.raises(UnreadableImage, match="it has more than 90,000 pixels"):
        read_square(jpeg_of(picture(2500, 2500)), 16, "crop", "larger than an eighth")


def test_a_jpeg_in_several_scans_is_refused_where_its_decoder_would_hold_too_much(monkeypatch) -> None:
    monkeypatch.setattr(reading, "MAX_PIXELS", 90_000)
    monkeypatch.setattr(jpeg, "MAX_BYTES", 2 * 800 * 600 * 3)  # three values a pixel, where colours are not subsampled
    image, slim = picture(800, 600), {"subsampling": "4:4:4"}
    assert read_square(jpeg_of(image, progressive=True, **slim), 32, "crop").size == (32, 32)
    monkeypatch.setattr(jpeg, "MAX_BYTES", 2 * 800 * 600 * 3 - 1)
    with pytest.raises(UnreadableImage, match=r"a progressive JPEG of 800 x 600 takes .* to decode"):
        read_square(jpeg_of(image, progressive=True, **slim), 32, "crop", "scans")
    assert read_square(jpeg_of(image, progressive=True, subsampling="4:2:0"), 32, "crop").size == (32, 32)
    assert read_square(jpeg_of(image, **slim), 32, "crop").size == (32, 32)  # in one scan
    split = jpeg_of(image, **slim).getvalue()
    at = split.index(b"\xff\xda\x00\x0c\x03")
    split = split[:at] + b"\xff\xda\x00\x08\x01\x01\x00\x00\x3f\x00" + split[at + 14 :]  # one component a scan
    with pytest.raises(UnreadableImage, match="a progressive JPEG"):
        read_square(io.BytesIO(split), 32, "crop", "scans")


def test_a_truncated_jpeg_is_found_without_decoding_it_whole() -> None:
    whole = jpeg_of(picture(400, 300)).getvalue()
    for end in range(len(whole) - 1, 200, -len(whole) // 40):
        verdicts = []
        for look in (read_image, facts_of):
            try:
                verdicts.append(bool(look(io.BytesIO(whole[:end]), "cut")) and False)
            except UnreadableImage as error:
                verdicts.append(error.reason)
        assert verdicts[0] == verdicts[1]
        assert verdicts[0] or end >= len(whole) - 2
