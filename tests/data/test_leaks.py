"""Images to train on that are also images to evaluate on are told in one line, and left out of training on request."""

import hashlib
import json
import os
import shutil
from pathlib import Path

import datasets
import numpy as np
import pytest
from conftest import compose_once
from layouts import textures
from PIL import Image
from scripts import run_here
from sources import SPLITS, contents, load, sizes

from distdiff.data.examining import identity_of
from distdiff.data.images import DatasetSplits
from distdiff.data.leaks import find_leaks, leak_counts, sentence, tell_leaks
from distdiff.errors import UserError
from distdiff.pretraining.images import pretraining_images
from distdiff.report.html import write_report
from distdiff.study.results import StudyResults
from distdiff.study.runs import MethodResult, RunResult
from distdiff.study.study import Study

FILES = {"train": 6, "validation": 2, "test": 3}  # of each class
COPIES = {  # a file that is a copy of another
    "test/cat/leak.png": "train/cat/1.png",
    "test/cat/more.png": "train/cat/1.png",
    "test/dog/leak.png": "train/cat/2.png",
    "validation/dog/leak.png": "train/dog/3.png",
    "validation/cat/both.png": "test/cat/0.png",
}
COUNTS = {"test_in_train": 3, "validation_in_train": 1, "test_in_validation": 1}


def pixels(number: int) -> np.ndarray:
    return np.random.default_rng(number).integers(0, 256, (12, 12, 3), dtype=np.uint8)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder with splits of its own, in which five files are copies of others."""
    number = 0
    for split, count in FILES.items():
        for name in ("cat", "dog"):
            for file in range(count):
                path = tmp_path / "pets" / split / name / f"{file}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels(number := number + 1)).save(path)
    for copy, of in COPIES.items():
        shutil.copy(tmp_path / "pets" / of, tmp_path / "pets" / copy)
    age(tmp_path)
    return tmp_path / "pets"


def age(folder: Path) -> None:
    """Files that changed just now are looked at again by every command."""
    for path in folder.rglob("*.png"):
        os.utime(path, (1e9, 1e9))


def counts_of(splits: DatasetSplits) -> dict[str, int]:
    return leak_counts(tell_leaks(splits))


def folder(root: Path) -> dict:
    return {"option": "imagefolder", "root": str(root)}


def archive(root: Path) -> dict:
    return {"option": "imagefolder", "root": shutil.make_archive(str(root), "zip", root)}


def metadata(root: Path) -> dict:
    paths = sorted(root.rglob("*.png"))
    rows = [f"{path.relative_to(root)},{path.parent.name},{path.parent.parent.name}" for path in paths]
    (root / "metadata.csv").write_text("\n".join(["file_name,label,split", *rows]))
    return {"option": "imagefolder", "root": str(root)}


def parquet(root: Path) -> dict:
    for split in FILES:
        paths = sorted((root / split).rglob("*.png"))
        rows = {
            "image": [{"bytes": path.read_bytes(), "path": None} for path in paths],
            "label": [path.parent.name for path in paths],
        }
        features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["cat", "dog"])})
        (root.parent / "tables").mkdir(exist_ok=True)
        datasets.Dataset.from_dict(rows, features=features).to_parquet(str(root.parent / f"tables/{split}.parquet"))
    return {"option": "parquet", "root": str(root.parent / "tables")}


def arrays(root: Path) -> dict:
    """The pixels without files, as MedMNIST has them."""
    found = {}
    for split, key in (("train", "train"), ("validation", "val"), ("test", "test")):
        paths = sorted((root / split).rglob("*.png"))
        found[f"{key}_images"] = np.stack([np.asarray(Image.open(path)) for path in paths])
        found[f"{key}_labels"] = np.array([[int(path.parent.name == "dog")] for path in paths])
    np.savez(root.parent / "breastmnist.npz", **found)
    return {"option": "breastmnist", "root": str(root.parent / "breastmnist.npz"), "check_counts": False}


@pytest.mark.parametrize("kind", [folder, archive, metadata, parquet, arrays])
def test_leaks_are_found_and_left_out_of_every_kind_of_dataset(kind, root: Path, tmp_path: Path, capsys) -> None:
    given = kind(root)
    option = given.pop("option")
    splits = load(option, tmp_path, **given)
    assert counts_of(splits) == COUNTS | {"left_out": 0}
    said = capsys.readouterr().out.splitlines()[-1]
    assert said.startswith(f"dataset {splits.train.name}: 3 of 9 test images are also among the training images (")
    assert said.endswith("; dataset.drop_leaks=true leaves them out of training and validation")
    left = load(option, tmp_path, **given, drop_leaks=True)
    assert sizes(left) == (9, 5, 9)
    assert counts_of(left) == COUNTS | {"left_out": 4}
    (said,) = [line for line in capsys.readouterr().out.splitlines() if "leaks" in line]
    assert said.endswith("; dataset.drop_leaks=true leaves out 3 training images and 1 validation image")
    assert not any(leak.count for leak, _ in find_leaks(left))


def test_the_line_names_the_first_two_pairs(root: Path, tmp_path: Path) -> None:
    shutil.copy(root / "train/dog/0.png", root / "test/dog/third.png")
    found = tell_leaks(load("imagefolder", tmp_path, root=str(root)))
    assert sentence(found) == (
        "4 of 10 test images are also among the training images (train cat/1.png = test cat/leak.png; train cat/2.png = "
        "test dog/leak.png; and 1 pair more), and 1 of 6 validation images is also among the training images (train "
        "dog/3.png = validation dog/leak.png), and 1 of 10 test images is also among the validation images (validation "
        "cat/both.png = test cat/0.png); dataset.drop_leaks=true leaves them out of training and validation"
    )


def test_what_is_left_out_is_what_a_comparison_of_all_bytes_finds(root: Path, tmp_path: Path) -> None:
    left = load("imagefolder", tmp_path, root=str(root), drop_leaks=True)
    held = {split: {path.read_bytes() for path in (root / split).rglob("*.png")} for split in FILES}
    for split, others in (("train", held["validation"] | held["test"]), ("validation", held["test"])):
        kept = {path for path in (root / split).rglob("*.png") if path.read_bytes() not in others}
        found = contents(getattr(left, split))
        assert {(name, key) for name, keys in found.items() for key in keys} == {
            (path.parent.name, path.name) for path in kept
        }


def test_without_leaks_nothing_is_said_and_the_key_changes_no_image(root: Path, tmp_path: Path, capsys) -> None:
    for copy in COPIES:
        (root / copy).unlink()
    plain, dropped = (load("imagefolder", tmp_path, root=str(root), drop_leaks=drop) for drop in (False, True))
    assert counts_of(plain) == counts_of(dropped) == dict.fromkeys(COUNTS, 0) | {"left_out": 0}
    assert not capsys.readouterr().out
    for split in SPLITS:
        assert identity_of(getattr(plain, split)) == identity_of(getattr(dropped, split))


def test_copies_within_a_dataset_without_splits_are_left_out_of_what_is_carved(tmp_path: Path) -> None:
    for number in range(40):
        path = tmp_path / "photos" / "ab"[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels(number // 4)).save(path)  # each picture twice in each class
    given = {"root": str(tmp_path / "photos")}
    before, left = load("imagefolder", tmp_path, **given), load("imagefolder", tmp_path, **given, drop_leaks=True)
    assert any(leak.count for leak, _ in find_leaks(before))
    assert contents(left.test) == contents(before.test)
    assert not any(leak.count for leak, _ in find_leaks(left))


def test_a_fold_shares_nothing_with_the_rest_and_the_unused_validation_split_counts_for_nothing(root, tmp_path) -> None:
    shutil.copy(root / "train/cat/4.png", root / "train/cat/twin.png")
    given = {"root": str(root), "num_folds": 2, "drop_leaks": True}
    for fold in range(2):
        folded = load("imagefolder", tmp_path, **given, fold=fold)
        assert not any(leak.count for leak, _ in find_leaks(folded))
        used = [*contents(folded.train)["dog"], *contents(folded.validation)["dog"]]
        assert sorted(used) == [f"{number}.png" for number in range(6)]  # 3.png is only in the unused validation split
        assert "1.png" not in contents(folded.train)["cat"] + contents(folded.validation)["cat"]


def test_positions_count_all_training_images_and_numbers_those_that_are_left(root: Path, tmp_path: Path) -> None:
    given = {"root": str(root), "drop_leaks": True}
    chosen = load("imagefolder", tmp_path, **given, indices=[0, 1, 11]).train
    assert contents(chosen) == {"cat": ["0.png"], "dog": ["5.png"]}
    assert len(load("imagefolder", tmp_path, **given, max_images=9).train) == 9


def test_the_next_command_hashes_no_file_again_and_decodes_none_to_compare(root, tmp_path, monkeypatch) -> None:
    hashed, digest = [], hashlib.file_digest
    monkeypatch.setattr(hashlib, "file_digest", lambda file, *more: hashed.append(file.name) or digest(file, *more))
    monkeypatch.setattr("distdiff.data.examining.facts_of", lambda *_: pytest.fail("decoded"))
    first = find_leaks(load("imagefolder", tmp_path, root=str(root)))
    assert len(hashed) == len(set(hashed)) <= 12 + 6 + 9
    hashed.clear()
    assert find_leaks(load("imagefolder", tmp_path, root=str(root))) == first
    assert not hashed
    monkeypatch.undo()
    monkeypatch.setattr(hashlib, "file_digest", lambda *_: pytest.fail("hashed again to be examined"))
    test = load("imagefolder", tmp_path, root=str(root)).test
    assert identity_of(test.select([test.keys.index("leak.png")]))


def test_a_file_is_read_only_if_another_split_has_one_of_its_size(root: Path, tmp_path: Path, monkeypatch) -> None:
    for number, path in enumerate(sorted(root.rglob("*.png"))):
        path.write_bytes(path.read_bytes() + bytes(number))  # decoders ignore what follows
    twin = root / "test/dog/0.png"
    shutil.copy(root / "train/dog/0.png", twin)
    (root / "test/dog/empty.png").touch()
    (root / "train/dog/empty.png").touch()
    read, digest = [], hashlib.file_digest
    monkeypatch.setattr(hashlib, "file_digest", lambda file, *more: read.append(file.name) or digest(file, *more))
    (leak,) = [leak for leak, _ in find_leaks(load("imagefolder", tmp_path, root=str(root))) if leak.count]
    assert leak.pairs == (("train dog/0.png", "test dog/0.png"),)
    assert sorted(read) == sorted([str(twin), str(root / "train/dog/0.png")])


def test_a_changed_file_is_compared_anew(root: Path, tmp_path: Path) -> None:
    given = {"root": str(root)}
    assert counts_of(load("imagefolder", tmp_path, **given))["test_in_validation"] == 1
    shutil.copy(root / "test/cat/1.png", root / "validation/cat/0.png")
    assert counts_of(load("imagefolder", tmp_path, **given))["test_in_validation"] == 2
    (root / "validation/cat/both.png").unlink()
    assert counts_of(load("imagefolder", tmp_path, **given))["test_in_validation"] == 1


def test_a_published_split_is_never_refused_but_a_class_without_a_training_image_is(tmp_path: Path) -> None:
    textures(tmp_path)  # all its images are the same
    given = {"root": str(tmp_path), "check_counts": False, "split": "published"}
    assert counts_of(load("dtd", tmp_path, **given))["test_in_train"] == 2
    with pytest.raises(
        UserError, match=r"^dataset dtd: dataset\.drop_leaks=true leaves no training image of 2 classes "
    ):
        load("dtd", tmp_path, **given, drop_leaks=True)


def test_commands_say_it_once_and_keep_the_counts(root: Path, small_run: list[str], tmp_path: Path, capsys) -> None:
    given = ["dataset=imagefolder", f"dataset.root='{root}'", f"paths.output_dir='{tmp_path}/outputs'", "logger=none"]
    made, judge = tmp_path / "made", ["measure.judge_steps=1", "measure.metrics=[coverage]"]
    for command, more in (
        ("expand", [*small_run, "guidance=none", f"expansion.output_dir='{made}'"]),
        ("train", ["train.steps=1"]),
        ("measure", [f"measure.expanded='{made}'", *judge]),
        ("describe", []),
    ):
        ended = run_here(command, [*more, *given, f"hydra.run.dir='{tmp_path / command}'"], capsys)
        assert ended.status == 0, ended.err
        assert ended.out.count("dataset.drop_leaks=true leaves") == (3 if command == "describe" else 1), ended.out
        if command != "describe":
            assert json.loads((tmp_path / command / "results.json").read_text())["leaks"] == COUNTS | {"left_out": 0}
    found = json.loads((tmp_path / "describe/description.json").read_text())["leaks"]
    assert {f"{leak['split']}_in_{leak['in']}": leak["same_file"] for leak in found} == COUNTS


@pytest.mark.parametrize("split", ["test", "validation"])
def test_the_leaks_of_a_training_are_those_of_the_splits_whichever_it_is_tested_on(
    split: str, root: Path, tmp_path: Path, capsys
) -> None:
    given = ["dataset=imagefolder", f"dataset.root='{root}'", f"paths.output_dir='{tmp_path}'", "logger=none"]
    ended = run_here(
        "train", [*given, f"train.split={split}", "train.steps=1", f"hydra.run.dir='{tmp_path}/run'"], capsys
    )
    assert ended.status == 0, ended.err
    assert json.loads((tmp_path / "run/results.json").read_text())["leaks"] == COUNTS | {"left_out": 0}


def test_a_few_shot_training_is_compared_by_the_images_that_it_trains_on(root, tmp_path, capsys) -> None:
    given = ["dataset=imagefolder", f"dataset.root='{root}'", f"paths.output_dir='{tmp_path}'", "logger=none"]
    for seed, leaks in ((0, 0), (3, 1)):  # seed 3 draws train/cat/2.png, and seed 0 no image that is also a test image
        typed = ["dataset.per_class=1", "train.steps=1", f"seed={seed}", f"hydra.run.dir='{tmp_path}/{seed}'"]
        ended = run_here("train", [*given, *typed], capsys)
        found = json.loads((tmp_path / f"{seed}/results.json").read_text())["leaks"]
        assert found["test_in_train"] == leaks, ended.out


@pytest.mark.parametrize("drop", [False, True])
def test_a_study_tells_its_leaks_in_its_results_and_report(drop: bool, root, small_run, tmp_path: Path) -> None:
    given = ["dataset=imagefolder", f"dataset.root='{root}'", f"dataset.drop_leaks={drop}".lower()]
    config = compose_once("run", [*small_run, *given, "study.methods=[original]"])
    plan = Study(config, tmp_path).plan()
    assert len(plan.pool) == (9 if drop else 12)
    rows = [MethodResult("original", [RunResult(0, 0.5, 10)])]
    results = StudyResults("pets", "test", "none", rows, timing={}, leaks=plan.leaks)
    results.write(tmp_path)
    assert json.loads((tmp_path / "results.json").read_text())["leaks"] == COUNTS | {"left_out": 4 if drop else 0}
    write_report(results, config, None, tmp_path / "report.html")
    page = " ".join((tmp_path / "report.html").read_text().split())
    assert "<li>Leaks: 3 of 9 test images are also among the training images (" in page


def test_a_pretraining_leaves_out_test_images_that_are_training_images_too(root: Path, tmp_path: Path, capsys) -> None:
    given = ["dataset=imagefolder", f"dataset.root='{root}'", f"paths.output_dir='{tmp_path}'"]
    assert len(pretraining_images(compose_once("pretrain", given))[0]) == 12
    assert capsys.readouterr().out.count("3 of 9 test images are also among the training images") == 1
    assert len(pretraining_images(compose_once("pretrain", [*given, "dataset.drop_leaks=true"]))[0]) == 9
