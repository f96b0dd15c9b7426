"""Several threads read images: in order, a few ahead, and the result does not depend on their number."""

import threading
import time
from pathlib import Path

import pytest
import torch
from pictures import assert_same, batches, photo_folder, training_images

from distdiff.data.examining import identity_of
from distdiff.data.reading.decoding import UnreadableImage
from distdiff.data.reading.prefetch import prefetched


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return photo_folder(tmp_path)


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
