"""Training, validation and test images: carved, folded and drawn by seeds of their own; the test set never moves."""

import hashlib
import warnings
from collections.abc import Callable
from pathlib import Path

import datasets
import numpy as np
import pytest
from conftest import compose
from layouts import (
    METADATA,
    aircraft,
    archived,
    caltech,
    classed,
    folder_of,
    medmnist,
    picture,
    png,
    table,
    textures,
    write_metadata,
)
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold
from sources import SPLITS, contents, error_of, expansion, load, sizes

from distdiff.commands.configuration import configure_jobs
from distdiff.data.images import LabelledImages
from distdiff.data.splits.carving import check_measurable
from distdiff.data.splits.folds import take_fold
from distdiff.errors import UserError
from distdiff.study.study import Study


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


def counted_images(tmp_path: Path, **counts: int) -> str:
    """Class folders of so many images each."""
    for name, count in counts.items():
        for number in range(count):
            picture(tmp_path / "photos" / name / f"{number:02d}.png", number)
    return str(tmp_path / "photos")


def drawn(images: LabelledImages) -> tuple[list[str], str]:
    """The first few of the source's images, and a hash of all."""
    return images.indices[:8].tolist(), hashlib.sha256(images.indices.astype(np.int64).tobytes()).hexdigest()[:16]


def test_carved_splits_are_those_of_earlier_versions(tmp_path) -> None:
    """What these lists are was written down before split_seed was there."""
    digits = load("digits", tmp_path)
    assert {split: drawn(getattr(digits, split)) for split in SPLITS} == {
        "train": ([0, 5, 8, 9, 13, 16, 17, 18], "8d6a736b875bacd5"),
        "validation": ([2, 3, 6, 7, 11, 12, 14, 15], "fbe7294d5584a019"),
        "test": ([1, 4, 10, 21, 24, 25, 28, 32], "5e3a7a586544e588"),
    }
    fonts = load("font_digits", tmp_path)
    assert [drawn(getattr(fonts, split))[1] for split in SPLITS] == [
        "074879e44fb42ae8",
        "5cd9934d61c9941c",
        "349859c442cb8e0f",
    ]
    photos = load("imagefolder", tmp_path, root=counted_images(tmp_path, cat=12, dog=7))
    assert contents(photos.test) == {"cat": ["02.png", "09.png"], "dog": ["01.png"]}
    assert contents(photos.validation) == {"cat": ["05.png", "07.png"], "dog": ["02.png"]}


@pytest.mark.parametrize("option", ["digits", "font_digits", "imagefolder"])
def test_split_seed_draws_other_validation_images_and_never_other_test_images(option: str, tmp_path) -> None:
    keys = {"root": counted_images(tmp_path, cat=30, dog=20)} if option == "imagefolder" else {}
    first, same, other = (load(option, tmp_path, **keys, **more) for more in ({}, {"split_seed": 0}, {"split_seed": 3}))
    for split in SPLITS:
        assert drawn(getattr(first, split)) == drawn(getattr(same, split))
    assert sizes(first) == sizes(other)
    assert np.array_equal(first.test.indices, other.test.indices)
    assert not np.array_equal(first.validation.indices, other.validation.indices)
    counts = [np.bincount(splits.validation.labels) for splits in (first, other)]
    assert np.abs(counts[0] - counts[1]).max() <= 1
    everything = [set(part.indices) for part in (other.train, other.validation, other.test)]
    assert len(set.union(*everything)) == sum(map(len, everything)) == sum(sizes(first))


def saved_table(tmp_path: Path) -> dict[str, object]:
    classed(table(9, [0, 1, 1] * 3), ["cat", "dog"]).to_parquet(tmp_path / "all.parquet")
    return {"root": str(tmp_path / "all.parquet")}


def table_on_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, object]:
    hub = datasets.DatasetDict(train=classed(table(9, [0, 1, 1] * 3), ["cat", "dog"]))
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: hub)
    return {"hub_id": "someone/photos"}


def listed(tmp_path: Path) -> dict[str, object]:
    rows = [*METADATA, *({**row, "file_name": f"images/2{row['file_name'][7:]}"} for row in METADATA)]
    for row in rows:
        picture(tmp_path / row["file_name"])
    write_metadata(tmp_path, "csv", rows)
    return {"root": str(tmp_path)}


def named(make: Callable[[Path], object], split: str = "authors", place: str = "") -> Callable[..., dict[str, object]]:
    def build(tmp_path: Path) -> dict[str, object]:
        make(tmp_path / place)
        return {"root": str(tmp_path), "check_counts": False, "split": split}

    return build


def zipped(tmp_path: Path) -> dict[str, object]:
    members = {f"{name}/{number}.png": png() for name in ("cat", "dog") for number in range(5)}
    return {"root": str(archived(tmp_path / "photos.zip", members))}


SOURCES = {  # option, what makes a small copy and gives its keys, validation images of its own
    "digits": ("digits", lambda _: {}, 400),
    "class folders": ("imagefolder", lambda top: {"root": counted_images(top, cat=9, dog=5)}, 0),
    "split folders": ("imagefolder", lambda top: {"root": folder_of(top, cat=5, dog=4)}, 0),
    "metadata": ("imagefolder", listed, 2),
    "archive": ("imagefolder", zipped, 0),
    "parquet": ("parquet", saved_table, 0),
    "hub": ("hub", table_on_hub, 0),
    "caltech101": ("caltech101", named(caltech), 0),
    "dtd, published": ("dtd", named(textures, "published"), 0),
    "pathmnist": ("pathmnist", named(medmnist, place="pathmnist.npz"), 2),
}


@pytest.mark.parametrize("source", SOURCES)
def test_folds_part_the_training_images_of_every_source(source: str, tmp_path, monkeypatch, capsys) -> None:
    option, make, own = SOURCES[source]
    keys = make(tmp_path, monkeypatch) if make is table_on_hub else make(tmp_path)
    whole = load(option, tmp_path, **keys, validation_fraction=0)
    folds = [load(option, tmp_path, **keys, num_folds=2, fold=fold) for fold in range(2)]
    said = " ".join(capsys.readouterr().out.split())
    assert said.count(f"its own {own} validation images left out: dataset.num_folds=2") == (2 if own else 0)
    assert ("left out: dataset.num_folds" in said) == bool(own)
    for splits in folds:
        assert np.array_equal(splits.test.indices, whole.test.indices)
        assert splits.test.keys == whole.test.keys
        together = np.concatenate([splits.train.indices, splits.validation.indices])
        assert np.array_equal(np.sort(together), np.sort(whole.train.indices))
        known = dict(zip(whole.train.indices, zip(whole.train.labels, whole.train.keys, strict=True), strict=True))
        for part in (splits.train, splits.validation):
            assert [known[i] for i in part.indices] == list(zip(part.labels, part.keys, strict=True))
        assert abs(len(splits.train) - len(splits.validation)) <= 1
        counts = [np.bincount(part.labels, minlength=2) for part in (splits.train, splits.validation)]
        assert np.abs(counts[0] - counts[1]).max() <= 1
        for position in range(min(3, len(splits.validation))):
            assert splits.validation.image(position).size
    held = [set(splits.validation.indices.tolist()) for splits in folds]
    assert not held[0] & held[1]
    assert held[0] | held[1] == set(whole.train.indices.tolist())


def test_folds_that_no_class_fills_are_refused(tmp_path) -> None:
    aircraft(tmp_path)
    keys = {"root": str(tmp_path), "check_counts": False, "split": "published"}
    message = error_of("fgvc_aircraft", tmp_path, **keys, num_folds=2)
    assert "dataset.num_folds=2 is not allowed: at most the 1 training image that the largest class" in message


@pytest.mark.parametrize("seed", [0, 3])
def test_folds_are_those_of_scikit_learn(seed: int, tmp_path) -> None:
    keys = {"root": counted_images(tmp_path, cat=23, dog=17, owl=11), "split_seed": seed}
    pool = load("imagefolder", tmp_path, **keys, validation_fraction=0).train
    expected = StratifiedKFold(5, shuffle=True, random_state=seed).split(pool.labels, pool.labels)
    for fold, (rest, held) in enumerate(expected):
        splits = load("imagefolder", tmp_path, **keys, num_folds=5, fold=fold)
        assert splits.train.keys == pool.select(rest).keys
        assert splits.validation.keys == pool.select(held).keys
        counts = np.bincount(splits.validation.labels) - np.bincount(pool.labels) / 5
        assert np.abs(counts).max() < 1


def test_another_seed_makes_other_folds_of_the_same_images(tmp_path) -> None:
    keys = {"root": counted_images(tmp_path, cat=30, dog=20), "num_folds": 5}
    first, other = (load("imagefolder", tmp_path, **keys, split_seed=seed) for seed in (0, 1))
    assert first.test.keys == other.test.keys
    assert first.validation.keys != other.validation.keys
    assert sizes(first) == sizes(other)


def test_fraction_and_cap_come_before_folds(tmp_path) -> None:
    root = folder_of(tmp_path, cat=20, dog=10)
    for more, expected in (({"fraction": 0.5}, 15), ({"max_images": 9}, 9), ({"indices": [0, 1, 2, 3, 20, 21, 22]}, 7)):
        splits = load("imagefolder", tmp_path, root=root, num_folds=3, **more)
        assert len(splits.train) + len(splits.validation) == expected


def grouped(counts: list[list[int]]) -> LabelledImages:
    """A class for each list, of groups with so many images, in a mixed order."""
    labels = np.concatenate([[label] * sum(sizes) for label, sizes in enumerate(counts)])
    numbers = iter(range(1000))
    groups = np.concatenate([np.repeat(next(numbers), size) for sizes in counts for size in sizes])
    images = LabelledImages(
        "any",
        tuple("abc"[: len(counts)]),
        labels,
        tuple(map(str, range(len(labels)))),
        read=None,
        indices=np.arange(len(labels)),
        groups=groups,
    )
    return images.select(np.random.default_rng(0).permutation(len(labels)))


def test_images_that_belong_together_are_in_one_fold_and_folds_are_those_of_scikit_learn() -> None:
    images = grouped([[3] * 10, [1, 2, 3, 4, 5, 6], [2] * 7])
    splitter = StratifiedGroupKFold(5, shuffle=True, random_state=4)
    held = []
    for fold, (rest, chosen) in enumerate(splitter.split(images.labels, images.labels, images.groups)):
        train, validation = take_fold(images, 5, fold, 4)
        assert train.indices.tolist() == images.indices[rest].tolist()
        assert validation.indices.tolist() == images.indices[chosen].tolist()
        assert not set(train.groups) & set(validation.groups)
        assert set(train.labels) == {0, 1, 2}
        held += validation.indices.tolist()
    assert sorted(held) == list(range(len(images)))


@pytest.mark.parametrize("seed", range(4))
def test_training_images_of_a_fold_have_every_class_and_one_group_is_always_trained_on(seed: int, capsys) -> None:
    images = grouped([[1] * 6, [5, 1], [4]])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        folds = [take_fold(images, 4, fold, seed) for fold in range(4)]
    for train, validation in folds:
        assert set(train.labels) == {0, 1, 2}
        assert 2 not in validation.labels
    assert sum(1 in validation.labels for _, validation in folds) == 2
    said = " ".join(capsys.readouterr().out.split())
    assert "2 classes with fewer training images than dataset.num_folds=4, not in every fold: b, c; " in said


def test_a_class_with_fewer_images_than_folds_is_said_and_never_lost_to_training(tmp_path, capsys) -> None:
    for name, count in (("cat", 6), ("fox", 3), ("owl", 1)):
        for part, number in (("train", count), ("test", 1)):
            for image in range(number):
                picture(tmp_path / part / name / f"{image}.png")
    keys = {"root": str(tmp_path), "num_folds": 5}
    found = 0
    for fold in range(5):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            splits = load("imagefolder", tmp_path, **keys, fold=fold)
        said = " ".join(capsys.readouterr().out.split())
        assert "2 classes with fewer training images than dataset.num_folds=5, not in every fold: fox, owl;" in said
        assert "a single image of a class is always trained on" in said
        assert contents(splits.train)["owl"] == ["0.png"]
        assert contents(splits.train)["fox"]
        found += len(contents(splits.validation)["fox"])
        with pytest.raises(UserError, match=r"dataset\.num_folds=5 takes as many images of each class: add images, or"):
            check_measurable(splits.validation, "validation", 5)
    assert found == 3
    assert "dataset.num_folds=7 is not allowed: at most the 6 training images" in error_of(
        "imagefolder", tmp_path, root=str(tmp_path), num_folds=7
    )


MISTAKES = {
    "dataset.num_folds=1": "dataset.num_folds=1 is not allowed: a number at least 2",
    "dataset.fold=1": "dataset.fold=1 is not allowed without dataset.num_folds",
    "dataset.num_folds=5 dataset.fold=5": "dataset.fold=5 is not allowed: an integer from 0 to 4, one less than",
    "dataset.num_folds=5 dataset.fold=-1": "dataset.fold=-1 is not allowed: a number at least 0",
    "dataset.num_folds=2.5": "dataset.num_folds",
    "dataset.split_seed=-1": "dataset.split_seed=-1 is not allowed: a number at least 0, at most 4294967295",
}


@pytest.mark.parametrize("overrides", MISTAKES)
def test_a_fold_that_there_is_not_is_one_line(overrides: str) -> None:
    with pytest.raises(UserError) as caught:
        compose("run", overrides.split())
    assert MISTAKES[overrides] in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_sweep_over_folds_is_checked_before_its_first_job() -> None:
    with pytest.raises(UserError, match=r"dataset\.fold=3 is not allowed"):
        configure_jobs("run", ["dataset.num_folds=3", "dataset.fold=0,3"])


def test_no_validation_images_is_an_error_with_the_ways_out(small_run: list[str], tmp_path) -> None:
    textures(tmp_path / "dtd")
    chosen = [
        "dataset=dtd",
        f"dataset.root={tmp_path}/dtd",
        "dataset.check_counts=false",
        "dataset.split=published",
        "encoder=guide",
    ]
    study = Study(compose("run", [*small_run, *chosen, "study.split=validation"]), tmp_path)
    with pytest.raises(UserError) as caught:
        study.plan()
    message = str(caught.value)
    assert "\n" not in message
    assert "no validation image of 2 of 2 classes (banded, zigzagged)" in message
    assert "dataset.num_folds=5 does" in message
    assert "dataset.validation_fraction=0.2 unless dataset.split=published" in message


def test_each_fold_has_an_expansion_of_its_own_and_the_same_fold_the_same(small_run: list[str], tmp_path) -> None:
    root = Path(counted_images(tmp_path, cat=10, dog=10))
    folds = [expansion(small_run, root, "dataset.num_folds=3", f"dataset.fold={fold}") for fold in (0, 1, 2, 0)]
    assert len({job.fingerprint for job in folds}) == 3
    assert folds[0].fingerprint == folds[3].fingerprint
    fixed = expansion(small_run, root, "dataset.split_seed=0")
    assert fixed.fingerprint == expansion(small_run, root).fingerprint
    assert fixed.fingerprint != expansion(small_run, root, "dataset.split_seed=1").fingerprint


def test_a_study_of_a_fold_is_cached_like_any_other(small_run: list[str], tmp_path) -> None:
    root = counted_images(tmp_path, cat=10, dog=10)
    study = ["dataset=imagefolder", f"dataset.root={root}", "study.methods=[original,none]", "study.seeds=1"]
    study += [
        "study.split=validation",
        "measure.judge_steps=3",
        "train.steps=5",
        "guidance=none",
        "dataset.num_folds=3",
    ]
    trained, made = tmp_path / "outputs/cache/classifiers", tmp_path / "outputs/expanded"
    counts, accuracies = [], []
    for run, fold in enumerate((0, 1, 0)):
        (tmp_path / str(run)).mkdir()
        folded = Study(compose("run", [*small_run, *study, f"dataset.fold={fold}"]), tmp_path / str(run))
        results = folded.run(folded.plan())
        counts.append([len([entry for entry in folder.iterdir() if entry.is_dir()]) for folder in (trained, made)])
        accuracies.append([row.mean("accuracy") for row in results.rows])
    assert counts[1] == [2 * number for number in counts[0]]
    assert counts[2] == counts[1]  # the first fold again: nothing is trained, nothing expanded
    assert accuracies[2] == accuracies[0]
