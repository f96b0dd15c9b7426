"""Decoded images are kept on disk: the same bit for bit, within their room, and a full disk ends nothing."""

import errno
import gc
import json
import os
import warnings
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from pictures import assert_same, batches, calls_of, photo_folder, training_images

from distdiff.data import images as images_module
from distdiff.data.cache import image_cache
from distdiff.data.images import LabelledImages
from distdiff.data.readable import checked
from distdiff.data.reading.decoding import read_square


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return photo_folder(tmp_path)


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


def test_a_file_of_images_is_closed_with_its_images(root: Path) -> None:
    """Where nothing closes it, Python warns of it (`ResourceWarning`) in whatever code runs at that moment."""
    images = kept(training_images(root))
    list(batches(images))
    (path,) = (root.parent / "cache/images").glob("*/pixels.npy")
    stored = image_cache.StoredImages(path, *np.load(path).shape[:1], np.load(path).shape[1:])
    stored.itself = stored  # a cycle, which only the garbage collector finds
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        del stored
        gc.collect()
    assert [str(each.message) for each in caught if issubclass(each.category, ResourceWarning)] == []
