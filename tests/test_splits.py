"""Training, validation and test images: carved, folded and drawn by seeds of their own; the test set never moves."""

import numpy as np
import pytest
from layouts import folder_of, picture
from sources import error_of, load, sizes

from distdiff.data.splits import check_measurable
from distdiff.errors import UserError


@pytest.mark.parametrize(("count", "expected"), [(1, (2, 0, 0)), (2, (2, 0, 2)), (4, (4, 2, 2)), (10, (12, 4, 4))])
def test_tiny_folders_are_carved_class_by_class(count: int, expected: tuple[int, ...], tmp_path) -> None:
    for name in ("cat", "dog"):
        for number in range(count):
            picture(tmp_path / name / f"{number}.png")
    splits = load("imagefolder", tmp_path, root=str(tmp_path))
    assert sizes(splits) == expected
    keys = [
        {*zip(part.labels.tolist(), part.keys, strict=True)} for part in (splits.train, splits.validation, splits.test)
    ]
    assert len(keys[0] | keys[1] | keys[2]) == 2 * count
    if count == 1:
        with pytest.raises(UserError, match=r"no test image of 2 of 2 classes \(cat, dog\)"):
            check_measurable(splits.test, "test")
    else:
        check_measurable(splits.test, "test")


def test_fraction_cap_and_indices_choose_training_images(tmp_path) -> None:
    root = folder_of(tmp_path, cat=8, dog=2)
    keys = {"root": root, "validation_fraction": 0}

    def count(**more: object) -> list[int]:
        return np.bincount(load("imagefolder", tmp_path, **keys, **more).train.labels).tolist()

    assert count() == [8, 2]
    assert count(fraction=0.5) == [4, 1]
    assert count(fraction=0.01) == [1, 1]
    assert count(max_images=5) == [4, 1]
    assert count(max_images=2) == [1, 1]
    assert load("imagefolder", tmp_path, **keys, indices=[9, 0]).train.keys == ("1.png", "0.png")
    assert "at least one of each of the 2 classes" in error_of("imagefolder", tmp_path, **keys, max_images=1)
    assert "there are 10 training images" in error_of("imagefolder", tmp_path, **keys, indices=[10])
    assert "1 of 2 classes have no image" in error_of("imagefolder", tmp_path, **keys, indices=[0])
