"""What was found out about files is remembered, and noticed when it is no longer true."""

import json
import os
import shutil
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pictures import calls_of, photo_folder, picture, table, training_images

from distdiff.data import examining
from distdiff.data.cache import examined
from distdiff.data.examining import examine, identity_of
from distdiff.data.reading.decoding import facts_of
from distdiff.data.reading.options import ReadingOptions
from distdiff.data.soft_labels import SoftLabels


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return photo_folder(tmp_path)


@pytest.fixture
def decoded(monkeypatch) -> list:
    """What was decoded to examine it."""
    return calls_of(facts_of, examining, monkeypatch)


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


def test_soft_labels_are_part_of_the_identity_but_not_the_room_around_them(root: Path) -> None:
    images = training_images(root)
    given = [((int(label), 0.75), (1 - int(label), 0.25)) for label in images.labels]
    mixed = replace(images, soft=SoftLabels.of(given))
    wider = SoftLabels(*(np.pad(part, ((0, 0), (0, 3))) for part in (mixed.soft.classes, mixed.soft.weights)))
    assert identity_of(mixed) != identity_of(images)
    assert identity_of(replace(images, soft=wider)) == identity_of(mixed)
    given[3] = given[3][:1]
    assert identity_of(replace(images, soft=SoftLabels.of(given))) != identity_of(mixed)


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
