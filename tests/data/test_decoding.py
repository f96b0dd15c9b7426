"""Images are decoded once, fast and alike for all: reduced JPEGs, backgrounds, threads, what is remembered and kept on disk."""

import errno
import functools
import io
import json
import os
import shutil
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import compose
from datasets import ClassLabel, Dataset, Features
from datasets import Image as ImageFeature
from omegaconf import DictConfig
from PIL import Image

from distdiff.classification.data import ClassificationData, ImageTensors
from distdiff.data import examining
from distdiff.data import images as images_module
from distdiff.data.cache import examined, image_cache
from distdiff.data.datasets import load_dataset
from distdiff.data.examining import examine, identity_of
from distdiff.data.images import LabelledImages
from distdiff.data.readable import checked
from distdiff.data.reading import decoding as reading
from distdiff.data.reading import jpeg
from distdiff.data.reading.background import colour
from distdiff.data.reading.decoding import UnreadableImage, is_transparent, read_image, read_square
from distdiff.data.reading.fit import fit_image
from distdiff.data.reading.options import ReadingOptions
from distdiff.data.reading.prefetch import prefetched
from distdiff.errors import UserError

FITS = ("crop", "squash", "pad")


def picture(width: int, height: int, seed: int = 0) -> Image.Image:
    """Smooth colours with a few edges, like a photo's."""
    coarse = np.random.default_rng(seed).integers(0, 256, (9, 12, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


def jpeg_of(image: Image.Image, **options: object) -> io.BytesIO:
    stream = io.BytesIO()
    image.save(stream, options.pop("format", "JPEG"), quality=90, **options)
    return stream


def png_of(image: Image.Image) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "PNG")
    return stream.getvalue()


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
    monkeypatch.setattr(reading, "_colours", lambda image, _: found.append(image.size) or image)
    read_square(jpeg_of(picture(800, 300)), size, fit)
    assert found == [decoded]


def test_a_huge_jpeg_is_read_and_a_huge_png_is_not(monkeypatch) -> None:
    monkeypatch.setattr(reading, "MAX_PIXELS", 90_000)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 45_000)  # at twice of it Pillow refuses the header
    image = picture(800, 600)
    assert read_image(jpeg_of(image)).size == (200, 150)
    assert read_square(jpeg_of(image), 150, "crop").size == (150, 150)
    assert not is_transparent(jpeg_of(image))
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
        for look in (read_image, is_transparent):
            try:
                verdicts.append(bool(look(io.BytesIO(whole[:end]), "cut")) and False)
            except UnreadableImage as error:
                verdicts.append(error.reason)
        assert verdicts[0] == verdicts[1]
        assert verdicts[0] or end >= len(whole) - 2


# What shows through transparency


def clear(level: int = 0) -> Image.Image:
    return Image.fromarray(np.full((8, 8, 4), level, np.uint8))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two classes of six training pictures and one test picture, and one training picture that is all transparent."""
    for seed in range(14):
        path = tmp_path / "photos" / ("train" if seed < 12 else "test") / "ab"[seed % 2] / f"{seed}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        picture(120 + seed, 90, seed).save(path, quality=90)
    clear().save(tmp_path / "photos/train/a/clear.png")
    for path in (tmp_path / "photos").rglob("*.*"):
        os.utime(path, (1e9, 1e9))
    return tmp_path / "photos"


@functools.cache
def composed(option: str) -> DictConfig:
    given = ["dataset.root=.", "dataset.name=any", "dataset.validation_fraction=0"]
    return compose("train", [f"dataset={option}", *given]).dataset


def training_images(root: Path, option: str = "imagefolder", **keys: object) -> LabelledImages:
    dataset = composed(option).copy()
    for key, value in ({"root": str(root), "cache_dir": f"{root.parent}/cache"} | keys).items():
        dataset[key] = value
    return load_dataset(dataset).train


def table(place: Path, images: list[Image.Image]) -> Path:
    """Two parquet files, of training and of test images."""
    place.mkdir()
    features = Features({"image": ImageFeature(), "label": ClassLabel(names=["a", "b"])})
    rows = {
        "image": [{"bytes": png_of(image), "path": None} for image in images],
        "label": [number % 2 for number in range(len(images))],
    }
    for split in ("train", "test"):
        Dataset.from_dict(rows, features=features).to_parquet(str(place / f"{split}.parquet"))
    return place


def test_the_background_shows_through_in_files_archives_and_tables(root: Path) -> None:
    shutil.make_archive(str(root.parent / "packed"), "zip", root)
    tables = table(root.parent / "tables", [clear()] * 4)
    for place, option in ((root, "imagefolder"), (root.parent / "packed.zip", "imagefolder"), (tables, "parquet")):
        for given, shown in (("white", (255, 255, 255)), ("#102030", (16, 32, 48)), ([4, 5, 6], (4, 5, 6))):
            images = training_images(place, option, background=given)
            position = next((i for i, key in enumerate(images.keys) if key == "clear.png"), 0)
            assert (
                images.image(position).getpixel((3, 3)) == images.square(position, 16, "pad").getpixel((8, 8)) == shown
            )


@pytest.mark.parametrize("value", ["reddish", "#10203040", 7, True, [1, 2], [1, 2, 300], [1, 2, 3.5], None, {"a": 1}])
def test_a_background_that_is_no_colour_is_one_line(value: object) -> None:
    with pytest.raises(UserError, match=r"^dataset\.background=.* is not allowed: a colour, such as white"):
        colour(value)


def test_a_background_is_checked_before_anything_loads() -> None:
    given = "dataset.background='\"rgb(1,2,3)\"'"
    assert ReadingOptions.of(compose("train", [given.replace("'", "")]).dataset).background == (1, 2, 3)
    for value in ("[1,2]", "7", "reddish"):
        with pytest.raises(UserError, match=r"^dataset\.background=.* is not allowed"):
            compose("train", ["dataset=imagefolder", "dataset.root=/nowhere", f"dataset.background={value}"])
    with pytest.raises(UserError, match=r"^dataset\.num_workers=0 is not allowed: a number at least 1"):
        compose("train", ["dataset.num_workers=0"])


def test_the_background_identifies_only_what_it_changes(root: Path) -> None:
    white, red = (training_images(root, background=name) for name in ("white", "red"))
    assert identity_of(white) != identity_of(red)
    opaque = [[p for p, key in enumerate(part.keys) if key != "clear.png"] for part in (white, red)]
    assert identity_of(white.select(opaque[0])) == identity_of(red.select(opaque[1]))


# What was found out about files is remembered


def calls_of(reader: Callable, module: ModuleType, monkeypatch) -> list:
    """The files that `module` hands to `reader` from now on."""
    calls = []
    monkeypatch.setattr(module, reader.__name__, lambda file, *more: calls.append(file) or reader(file, *more))
    return calls


@pytest.fixture
def decoded(monkeypatch) -> list:
    """What was decoded to examine it."""
    return calls_of(is_transparent, examining, monkeypatch)


def test_the_second_run_decodes_nothing_and_says_the_same(root: Path, decoded: list) -> None:
    first = examine(training_images(root))
    assert len(decoded) == len(training_images(root)) > 10
    decoded.clear()
    assert examine(training_images(root)) == first
    assert not decoded
    assert examine(training_images(root, cache_dir=f"{root.parent}/other")) == first  # nor does memory change it
    assert examine(replace(training_images(root), options=ReadingOptions())) == first


def test_a_changed_file_is_noticed_even_with_the_size_and_time_it_had(root: Path, decoded: list) -> None:
    before = identity_of(training_images(root))
    path = root / "train/a/0.jpg"
    content, stat = bytearray(path.read_bytes()), path.stat()
    place = content.index(b"\xff\xda") + 200
    content[place] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    decoded.clear()
    assert identity_of(training_images(root)) != before
    assert decoded == [str(path)]
    content[place] ^= 1
    path.write_bytes(content)
    assert identity_of(training_images(root)) == before


def test_added_removed_and_damaged_files_are_noticed(root: Path, decoded: list) -> None:
    lost, before = examine(training_images(root))
    assert not lost
    moved = root.parent / "0.jpg"
    shutil.move(root / "train/a/0.jpg", moved)
    without = identity_of(training_images(root))
    assert without != before
    decoded.clear()
    shutil.copy(moved, root / "train/a/0.jpg")
    assert identity_of(training_images(root)) == before
    assert not decoded  # its bytes are known
    for _ in range(2):  # damage is looked at each time
        (root / "train/a/0.jpg").write_bytes(moved.read_bytes()[:500])
        images = training_images(root)
        lost, found = examine(images)
        assert [images.keys[position] for position in lost] == ["0.jpg"]
        assert found == without
        assert decoded
        decoded.clear()


def test_a_file_that_changed_just_now_is_not_known_by_its_time(root: Path, monkeypatch) -> None:
    os.utime(root / "train/a/0.jpg")
    identity_of(training_images(root))
    (file,) = (root.parent / "cache/examined").iterdir()
    known = json.loads(file.read_text())["files"]
    assert str(root / "train/a/2.jpg") in known
    assert str(root / "train/a/0.jpg") not in known
    monkeypatch.setattr(examined.time, "time", lambda: time.time_ns() / 1e9 + 10)
    identity_of(training_images(root))
    assert str(root / "train/a/0.jpg") in json.loads(file.read_text())["files"]


@pytest.mark.parametrize(
    "spoil", [lambda text: text[:50], lambda text: "[]", lambda text: text.replace('"reading": 2', '"reading": 1')]
)
def test_a_memory_that_is_damaged_or_of_another_reader_counts_for_nothing(spoil, root: Path, decoded: list) -> None:
    first = identity_of(training_images(root))
    (file,) = (root.parent / "cache/examined").iterdir()
    file.write_text(spoil(file.read_text()))
    decoded.clear()
    assert identity_of(training_images(root)) == first
    assert len(decoded) == len(training_images(root))


def test_images_in_tables_are_known_by_their_bytes(root: Path, decoded: list) -> None:
    place = table(root.parent / "tables", [picture(9, 9, seed) for seed in range(8)])
    first = identity_of(training_images(place, "parquet"))
    assert decoded
    decoded.clear()
    assert identity_of(training_images(place, "parquet")) == first
    assert not decoded


# Several threads


def test_items_come_in_order_and_only_some_ahead_and_a_failure_where_it_would_have_come() -> None:
    begun = []

    def make(number: int) -> int:
        begun.append(number)
        time.sleep(0.002 * (number % 3))  # so that they are not done in the order in which they were begun
        if number == 30:
            raise ValueError("thirty")
        return number

    made = prefetched(make, range(1000), num_workers=3)
    assert [next(made) for _ in range(30)] == list(range(30))
    assert max(begun) < 30 + 4 * (2 * 3 + 2)
    with pytest.raises(ValueError, match="thirty"):
        next(made)
    assert len(begun) < 70
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("images")]


def test_an_interrupt_ends_the_threads() -> None:
    def interrupted() -> None:
        for number in prefetched(lambda number: number, range(10_000), num_workers=2):
            if number == 5:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("images")]


def batches(images: LabelledImages, size: int = 24, samples: int = 64) -> list[torch.Tensor]:
    """What a classifier is shown in two epochs and a bit, and in testing."""
    data = ClassificationData(*(ImageTensors([images], size, "crop", samples),) * 2, steps=8, batch_size=5, seed=3)
    return [pixels for loader in (data.train_dataloader(), data.test_dataloader()) for pixels, _ in loader]


def assert_same(first: list[torch.Tensor], second: list[torch.Tensor]) -> None:
    assert len(first) == len(second) == 9
    assert all(torch.equal(one, two) for one, two in zip(first, second, strict=True))


def test_the_number_of_threads_changes_nothing(root: Path) -> None:
    results = []
    for workers in (1, 2, 7):
        images = training_images(root, num_workers=workers, image_cache_gb=0)
        results.append((identity_of(images), images.tensors(24, "crop"), batches(images)))
    for fingerprint, tensors, shown in results:
        assert fingerprint == results[0][0]
        assert torch.equal(tensors, torch.stack([images.tensor(i, 24, "crop") for i in range(len(images))]))
        assert_same(shown, results[0][2])


def test_an_image_that_became_unreadable_is_named_in_training(root: Path) -> None:
    images = training_images(root, image_cache_gb=0)
    (root / "train/b/3.jpg").write_bytes(b"gone")
    with pytest.raises(UnreadableImage, match=r"3\.jpg: it is no image"):
        batches(images)


# Decoded images on disk


def kept(images: LabelledImages, gb: float = 1.0) -> LabelledImages:
    """The images with an identity, and room for so many GB of them."""
    images = replace(images, options=replace(images.options, image_cache_bytes=int(gb * 1e9)))
    return checked(images)[0]


def folders(root: Path) -> set[str]:
    return {path.parent.name for path in (root.parent / "cache/images").glob("*/pixels.npy")}


@pytest.fixture
def squares_decoded(monkeypatch) -> list:
    return calls_of(read_square, images_module, monkeypatch)


def test_kept_images_are_the_decoded_ones_bit_for_bit_and_decoded_once(root: Path, squares_decoded: list) -> None:
    images = training_images(root)
    without = batches(kept(images, 0))
    assert not folders(root)
    squares_decoded.clear()
    assert_same(batches(kept(images)), without)
    assert len(squares_decoded) == len(images)
    assert len(folders(root)) == 1
    squares_decoded.clear()
    assert_same(batches(kept(training_images(root))), without)  # another run
    assert torch.equal(kept(images).tensors(24, "crop"), images.tensors(24, "crop"))
    assert len(squares_decoded) == len(images)  # those of `images`, whose identity is not known
    array = np.load(next((root.parent / "cache/images").glob("*/pixels.npy")), mmap_mode="r", allow_pickle=False)
    assert (array.shape, array.dtype) == ((len(images), 24, 24, 3), np.uint8)


def test_less_than_an_epoch_keeps_nothing_but_reads_what_is_kept(root: Path, squares_decoded: list) -> None:
    images = kept(training_images(root))
    without = batches(images, samples=len(images) - 1)
    assert not folders(root)
    batches(images)
    squares_decoded.clear()
    assert_same(batches(images, samples=len(images) - 1), without)
    assert not squares_decoded


def test_the_least_recently_used_make_room_and_what_is_too_large_is_not_kept(root: Path) -> None:
    images = training_images(root)
    one = len(images) * 24 * 24 * 3 / 1e9
    several = [kept(images.select(np.roll(np.arange(len(images)), shift)), 2.1 * one) for shift in range(3)]
    squares = [part.squares(24, "crop") for part in several[:2]]
    (first,), (second,) = (
        [path.parent for path in (root.parent / "cache/images").glob("*/pixels.npy") if match(path, part)]
        for part in several[:2]
    )
    os.utime(first, (1e9, 1e9))
    os.utime(second, (1.1e9, 1.1e9))
    several[0].squares(24, "crop")  # used again
    third = several[2].squares(24, "crop")
    assert third.stored
    assert folders(root) >= {first.name}
    assert not second.exists()
    assert len(folders(root)) == 2
    assert torch.equal(
        torch.stack([torch.from_numpy(square) for square in squares[1]])[0], torch.from_numpy(squares[1].decode(0))
    )
    large = kept(images, 0.9 * one).squares(24, "crop")
    assert not large.stored
    assert len(folders(root)) == 2


def match(path: Path, images: LabelledImages) -> bool:
    return json.loads((path.parent / "ingredients.json").read_text())["data"] == images.identity


@pytest.mark.parametrize("how", ["no space", "fails", "no folder"])
def test_a_disk_that_is_full_ends_nothing(how: str, root: Path, monkeypatch, capsys) -> None:
    images = kept(training_images(root))
    without = batches(replace(images, identity=None))
    if how == "no space":
        monkeypatch.setattr(image_cache.shutil, "disk_usage", lambda _: SimpleNamespace(free=10**6))
    elif how == "fails":

        def fail(*_: object) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        monkeypatch.setattr(np.lib.format, "write_array_header_1_0", fail)
    else:
        (root.parent / "cache/images").write_text("a file is in its way")
    assert_same(batches(images), without)
    assert "decoded images are not kept in" in capsys.readouterr().out
    if how != "no folder":
        assert not list((root.parent / "cache/images").rglob("pixels.npy"))


def test_a_kept_file_that_is_cut_is_decoded_again_and_made_again(root: Path) -> None:
    images = kept(training_images(root))
    squares = images.squares(24, "crop")
    whole = [square.copy() for square in squares]
    (file,) = (root.parent / "cache/images").glob("*/pixels.npy")
    os.truncate(file, 2000)
    assert all(np.array_equal(one, two) for one, two in zip(squares, whole, strict=True))
    assert not squares.stored
    again = images.squares(24, "crop")
    assert again.stored
    assert all(np.array_equal(one, two) for one, two in zip(again, whole, strict=True))


def test_what_would_not_fit_removes_nothing_and_a_folder_that_cannot_be_looked_into_ends_nothing(
    root: Path, monkeypatch
) -> None:
    images = training_images(root)
    one = len(images) * 24 * 24 * 3 / 1e9
    kept(images, 1.5 * one).squares(24, "crop")
    before = folders(root)
    assert len(before) == 1
    other = kept(images.select(np.roll(np.arange(len(images)), 1)), 1.5 * one)
    with monkeypatch.context() as patched:
        patched.setattr(image_cache.shutil, "disk_usage", lambda _: SimpleNamespace(free=10**6))
        assert not other.squares(24, "crop").stored
        assert folders(root) == before

        def refuse(*_: object) -> bool:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

        patched.setattr(image_cache.StageCache, "has", refuse)
        patched.setattr(image_cache.StageCache, "get", refuse)
        assert not other.squares(24, "crop").stored
        assert not other.squares(24, "crop", keep=False).stored


def test_what_a_killed_process_left_is_removed_in_time(root: Path) -> None:
    left = root.parent / "cache/images/.abc-left"
    left.mkdir(parents=True)
    (left / "pixels.npy").write_bytes(bytes(1000))
    images = training_images(root)
    kept(images).squares(24, "crop")
    assert left.is_dir()  # it may just be filled
    for path in (left / "pixels.npy", left):
        os.utime(path, (1e9, 1e9))
    kept(images).squares(20, "crop")
    assert not left.exists()
