"""Expanded data are data: trained on alone, expanded again, merged, filtered, exported and uploaded."""

import json
from collections.abc import Callable
from pathlib import Path

import datasets
import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from conftest import compose
from PIL import Image
from standin import standin_job_of

from distdiff.commands.export import export
from distdiff.commands.train import train
from distdiff.data.datasets import load_dataset
from distdiff.data.images import LabelledImages
from distdiff.data.splits.carving import carve
from distdiff.errors import UserError
from distdiff.keys.suggesting import in_quotes
from distdiff.store import upload
from distdiff.store.dataset import origin
from distdiff.store.directory import ExpandedDirectory
from distdiff.store.filtering import RowFilter
from distdiff.store.formats.base import ASIDES
from distdiff.store.formats.imagefolder import ImageFolder
from distdiff.store.names import safe_name
from distdiff.store.reading import read_expanded
from distdiff.store.shares import Share, working_on

SOURCES, FACTOR = 12, 3


@pytest.fixture
def expanded(tmp_path: Path) -> Callable[..., Path]:
    """An expansion of 12 sources of two classes, `train` and `b.c`, by a stand-in; its directory."""

    def make(folder: str, *overrides: str, class_names: tuple[str, ...] = ("train", "b.c"), seed: int = 0) -> Path:
        config = compose("expand", [f"expansion.factor={FACTOR}", "logger=none", "expansion.shard_size=7", *overrides])
        keys = tuple(f"sub.dir/image {i}_val_.v{i % 3}.jpg" for i in range(SOURCES))
        images = LabelledImages("any", class_names, np.arange(SOURCES) % 2, keys, None, np.arange(SOURCES))
        job, _ = standin_job_of(images, config, tmp_path / folder)
        job.seed = seed
        job.run("test")
        return job.path

    return make


def exported(tmp_path: Path, target: str, *overrides: str) -> Path:
    (tmp_path / "run").mkdir(exist_ok=True)
    return export(compose("export", [f"export.output_dir={tmp_path / target}", *overrides]), tmp_path / "run")


def splits_of(*overrides: str):
    return load_dataset(compose("train", ["dataset=expanded", *overrides]).dataset)


def rows_of(path: Path) -> list[dict]:
    return pyarrow.parquet.read_table(path / "metadata.parquet").to_pylist()


def pixels(path: Path) -> dict[str, np.ndarray]:
    images = read_expanded(path)
    return {key: np.asarray(images.image(position)) for position, key in enumerate(images.keys)}


@pytest.mark.parametrize("storage", ["imagefolder", "webdataset", "parquet"])
def test_copies_of_a_source_are_never_on_both_sides_of_a_split(expanded, storage: str) -> None:
    path = expanded("once", f"expansion.format={storage}")
    splits = splits_of(f"dataset.root={path}")
    parts = (splits.train, splits.validation, splits.test)
    assert [len(part) for part in parts] == [8 * FACTOR, 2 * FACTOR, 2 * FACTOR]
    sources = [{(part.labels[i], part.keys[i].rpartition("__")[0]) for i in range(len(part))} for part in parts]
    assert not sources[0] & sources[1] | sources[0] & sources[2] | sources[1] & sources[2]
    for part in parts:
        assert part.class_names == ("train", "b.c")
        assert np.bincount(part.labels).min() == len(part) // 2
    whole, test = pixels(path), splits.test
    shown = f"{safe_name(test.class_names[test.labels[1]])}/{safe_name(test.keys[1])}"
    np.testing.assert_array_equal(np.asarray(test.image(1)), whole[shown])


def test_copies_of_copies_stay_with_their_first_source(expanded, tmp_path: Path) -> None:
    """An expanded dataset is expanded again, merged with the first, and split."""
    first = expanded("first")
    again = splits_of(f"dataset.root={first}").train
    config = compose("expand", ["expansion.factor=2", "logger=none"])
    job, synthesizer = standin_job_of(again, config, tmp_path / "second")
    job.run("test")
    assert len(synthesizer.made) == 2 * len(again)
    splits = splits_of(f"dataset.root=[{first},{job.path}]")
    parts = (splits.train, splits.validation, splits.test)
    assert sum(map(len, parts)) == SOURCES * FACTOR + 2 * len(again)
    sources = [{(part.labels[i], origin(part.keys[i])) for i in range(len(part))} for part in parts]
    assert len(set.union(*sources)) == sum(map(len, sources)) == SOURCES


def test_copies_of_a_source_are_in_one_fold(expanded) -> None:
    path = expanded("once")
    held, tests = [], []
    for fold in range(5):
        splits = splits_of(f"dataset.root={path}", "dataset.num_folds=5", f"dataset.fold={fold}")
        train, validation = (
            {(p.labels[i], origin(p.keys[i])) for i in range(len(p))} for p in (splits.train, splits.validation)
        )
        assert not train & validation
        assert len(train | validation) == SOURCES - 2
        assert len(splits.validation) == 2 * FACTOR
        held += validation
        tests.append(splits.test.keys)
    assert len(set(held)) == len(held) == SOURCES - 2
    assert set(tests) == {splits_of(f"dataset.root={path}").test.keys}


def test_splits_without_groups_are_as_they_were() -> None:
    labels = np.arange(40) % 3
    images = LabelledImages("any", ("a", "b", "c"), labels, tuple(map(str, range(40))), None, np.arange(40))
    rest, carved = carve(images, 0.2)
    expected = [
        np.random.default_rng([0, label]).permutation(np.flatnonzero(labels == label))[:3] for label in range(3)
    ]
    assert carved.keys == tuple(map(str, sorted(np.concatenate(expected))))
    assert len(rest) == 31


def test_a_classifier_trains_on_expanded_data_alone(expanded, tmp_path: Path) -> None:
    path, run = expanded("data"), tmp_path / "train"
    run.mkdir()
    keys = [f"paths.output_dir={tmp_path}/outputs", "train.steps=2", "logger=none"]
    train(compose("train", ["dataset=expanded", f"dataset.root={path}", "dataset.where='copy < 2'", *keys]), run)
    assert json.loads((run / "results.json").read_text())["num_train"] == 8 * 2


TABLE = pyarrow.table(
    {
        "class_name": ["cat", "dog", "cat", "it's"],
        "copy": [0, 1, 2, 3],
        "strength": [0.3, 0.5, 0.5, 0.9],
        "energy_after": [1.0, None, 1.2, 0.8],
        "gradient_finite": [True, False, True, None],
    }
)
CONDITIONS = {
    "strength >= 0.5": [1, 2, 3],
    "energy_after < 1.1 and strength >= 0.5": [3],
    "energy_after != 1.0": [2, 3],
    "not energy_after < 1.1": [2],
    "gradient_finite": [0, 2],
    "not gradient_finite": [1],
    "gradient_finite == False": [1],
    "class_name in ['cat', 'dog'] and copy in (0, 1)": [0, 1],
    "class_name not in ['cat']": [1, 3],
    'class_name == "it\'s" or (copy == 0)': [0, 3],
    "0.3 < strength <= 0.5": [1, 2],
    "copy > 0.5": [1, 2, 3],
    "copy in [0.5, 1]": [1],
    "energy_after > strength": [0, 2],
    "copy > -1 and 2 > copy": [0, 1],
    f"copy < {10**30}": [0, 1, 2, 3],
}


@pytest.mark.parametrize("condition", CONDITIONS)
def test_a_condition_keeps_the_rows_of_which_it_is_true(condition: str) -> None:
    for text in (condition, compose("train", ["train.expanded=x", f"train.where={in_quotes(condition)}"]).train.where):
        assert RowFilter("train.where", text).apply(TABLE)["copy"].to_pylist() == CONDITIONS[condition]


REFUSED = {
    "energy < 1": "there is no column energy; one of class_name, copy,",
    "strength < 'a'": "strength is a number, but 'a' is a text",
    "class_name in [1, 2]": "class_name is a text, but [1, 2] is a number",
    "class_name in ['a', 2]": "['a', 2] is no list of numbers or of 'texts'",
    "class_name in 'cat'": "'in' needs a list, such as [0, 1], not 'cat'",
    "strength": "the column strength holds a number",
    "gradient_finite < True": "only == and !=",
    "strength is 1": "strength is 1 is not an allowed comparison; a condition on columns of metadata.parquet, made of < <= >",
    "strength + 1 > 2": "strength + 1 is no column, number or 'text'",
    "__import__('os').system('true')": "__import__('os').system('true') is no condition",
    "copy.__class__ == 1": "copy.__class__ is no column",
    "(lambda: 1)() < 2": "is no column",
    "[x for x in (1,)]": "is no condition",
    "1": "1 is no condition",
    "copy <": "a condition on columns",
    "copy == 0; copy == 1": "a condition on columns",
    "": "a condition on columns",
    "not " * 1000 + "copy == 1": "a condition on columns",
    "(" * 500 + "copy": "a condition on columns",
    "--1 < 2": "--1 is no column, number or 'text'",
    "-" * 1500 + "1 < 2": "a condition on columns",
}


@pytest.mark.parametrize("condition", REFUSED, ids=lambda text: text[:30])
def test_what_is_no_condition_is_said_in_one_line(condition: str) -> None:
    with pytest.raises(UserError) as caught:
        RowFilter("export.where", condition).apply(TABLE)
    assert str(caught.value).startswith(f"export.where={condition!r} is not allowed: ")
    assert REFUSED[condition] in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_a_condition_keeps_identifies_a_classifier(small_run, image_folder, tmp_path: Path, capsys) -> None:
    from distdiff.commands.expand import expand

    (tmp_path / "run").mkdir()
    data = ["dataset=imagefolder", f"dataset.root={image_folder}"]
    path = expand(
        compose("expand", [*data, *small_run, "guidance=none", f"expansion.output_dir={tmp_path}/made"]), tmp_path
    )
    trained = tmp_path / "outputs/cache/classifiers"
    counts = []
    for where in ([], ["train.where='copy==0'"], ["train.where='copy  == 0'"], ["train.where='copy >= 0'"]):
        keys = [
            item for item in small_run if item.split("=")[0].split(".")[0] not in ("generator", "encoder", "expansion")
        ]
        capsys.readouterr()
        train(compose("train", [*data, *keys, f"train.expanded={path}", "train.steps=5", *where]), tmp_path / "run")
        num_train = json.loads((tmp_path / "run/results.json").read_text())["num_train"]
        counts.append((num_train, len([entry for entry in trained.iterdir() if entry.is_dir()])))
        said = capsys.readouterr().out
        assert ("images of made kept: train.where=copy" in said) == bool(where)
    (whole, before), (half, second), (same, third), (all_kept, fourth) = counts
    assert whole == all_kept
    assert half == same
    assert 2 * whole == 3 * half  # each source with both of its copies, and with the first
    assert (second, third, fourth) == (before + 1,) * 3  # what keeps everything is no other training set
    with pytest.raises(UserError, match="it is true of none of the"):
        train(compose("train", [*data, *keys, f"train.expanded={path}", "train.where='copy > 9'"]), tmp_path / "run")


@pytest.mark.parametrize("source", ["imagefolder", "parquet"])
@pytest.mark.parametrize("target", ["imagefolder", "webdataset", "parquet"])
def test_an_export_is_an_expanded_dataset_with_the_same_bytes(
    expanded, tmp_path: Path, source: str, target: str
) -> None:
    path = expanded("made", f"expansion.format={source}", "expansion.image_format=jpeg")
    keys = [f"export.source={path}", f"export.format={target}", "export.where='copy != 1'", "export.shard_size=10"]
    copy = exported(tmp_path, "copy", *keys)
    kept = [row for row in rows_of(path) if row["copy"] != 1]
    named = {row["file_name"]: row for row in rows_of(copy)}
    assert [row["file_name"] for row in kept] == list(named)
    for row in kept:
        assert {name: named[row["file_name"]][name] for name in row if name not in ("shard", "row")} == {
            name: value for name, value in row.items() if name not in ("shard", "row")
        }
    readers = [
        ExpandedDirectory(path).storage.reader(kept),
        ExpandedDirectory(copy).storage.reader(list(named.values())),
    ]
    assert all(readers[0](i) == readers[1](i) for i in range(len(kept)))
    if target == "imagefolder":
        loaded = datasets.load_dataset("imagefolder", data_dir=str(copy), split="train")
    else:
        loaded = datasets.load_dataset(str(copy), split="train")
    label = loaded.features["cls" if target == "webdataset" else "label"]
    assert label.names == ["train", "b.c"]
    assert len(loaded) == len(kept) == SOURCES * 2
    manifest = json.loads((copy / "manifest.json").read_text())
    assert manifest["complete"]
    assert manifest["counts"]["images"] == len(kept)
    assert manifest["ingredients"]["where"] == "copy != 1"
    assert manifest["ingredients"]["sources"][0]["identity"] == ExpandedDirectory(path).identity()
    assert not list(copy.glob(".*"))
    assert len(splits_of(f"dataset.root={copy}").train) == 8 * 2


def test_merged_datasets_keep_every_image_under_a_name_of_its_own(expanded, tmp_path: Path) -> None:
    first, second = expanded("first"), expanded("second", "expansion.image_format=webp", seed=1)
    third = expanded("third", class_names=("b.c", "train"), seed=2)  # the other way round, so that no name clashes
    fourth = expanded("fourth", seed=3)
    for storage in ("imagefolder", "webdataset"):
        keys = [f"export.source=[{first},{second},{third},{fourth}]", f"export.format={storage}"]
        merged = exported(tmp_path, storage, *keys)
        found = pixels(merged)
        assert len(found) == 4 * SOURCES * FACTOR
        for path, again in ((first, ""), (second, "-2"), (third, ""), (fourth, "-3")):
            for name, image in pixels(path).items():
                stem, extension = name.rsplit(".", 1)
                if storage == "webdataset":
                    extension = "png"
                np.testing.assert_array_equal(found[f"{stem}{again}.{extension}"], image)
        assert {(row["class_name"], row["label"]) for row in rows_of(merged)} == {("train", 0), ("b.c", 1)}
    others = expanded("others", class_names=("train", "cow"))
    with pytest.raises(UserError, match=r"have different classes, so they are not merged.*b\.c, cow"):
        exported(tmp_path, "never", f"export.source=[{first},{others}]")
    with pytest.raises(UserError, match="a directory is in it twice"):
        exported(tmp_path, "never", f"export.source=[{first},{first}]")
    assert not (tmp_path / "never").exists()


def test_an_interrupted_export_goes_on_and_another_one_is_refused(expanded, tmp_path: Path, monkeypatch) -> None:
    path = expanded("made")
    monkeypatch.setattr("distdiff.store.copying.BATCH", 5)
    write, written = ImageFolder.write, []

    def die(self, batch):
        if len(written) == 3:
            raise KeyboardInterrupt
        written.append(len(batch))
        write(self, batch)

    with monkeypatch.context() as patch:
        patch.setattr(ImageFolder, "write", die)
        with pytest.raises(KeyboardInterrupt):
            exported(tmp_path, "copy", f"export.source={path}")
    with pytest.raises(UserError, match="is not complete"):
        read_expanded(tmp_path / "copy")
    with pytest.raises(UserError, match=r"^export\.output_dir=.*made with another configuration \(where: None there"):
        exported(tmp_path, "copy", f"export.source={path}", "export.where='copy == 0'")
    there = {file: file.stat().st_mtime_ns for file in (tmp_path / "copy").glob("*/*.png")}
    assert len(there) == 15
    copy = exported(tmp_path, "copy", f"export.source={path}")
    assert {file: file.stat().st_mtime_ns for file in there} == there
    one, two = pixels(path), pixels(copy)
    assert one.keys() == two.keys()
    assert all(np.array_equal(one[name], two[name]) for name in one)
    assert not (copy / ASIDES).exists()
    with pytest.raises(UserError, match=r"^export\.output_dir=.* is not allowed: it lies in export.source"):
        exported(tmp_path, "made/copy", f"export.source={path}")
    (tmp_path / "full").mkdir()
    (tmp_path / "full/mine.txt").touch()
    with pytest.raises(UserError, match=r"^export\.output_dir=.* is not allowed: it holds other files"):
        exported(tmp_path, "full", f"export.source={path}")
    mine = [f"export.source={path}", "export.where='copy == 0'"]
    made = exported(tmp_path, "busy", *mine)
    (made / "manifest.json").write_text(
        (made / "manifest.json").read_text().replace('"complete": true', '"complete": false')
    )
    with working_on(made, Share()), pytest.raises(UserError, match=r"^export\.output_dir=.*busy: another process"):
        exported(tmp_path, "busy", *mine)


def test_names_in_metadata_lead_nowhere(expanded, tmp_path: Path) -> None:
    path = expanded("made")
    Image.new("RGB", (8, 8)).save(tmp_path / "secret.png")
    table = pyarrow.parquet.read_table(path / "metadata.parquet")
    for column, value, reason in (
        ("file_name", "../secret.png", "its metadata name a file outside of it"),
        ("class_name", "../../x", "its metadata name a class that it does not have"),
    ):
        changed = [value, *table[column].to_pylist()[1:]]
        position = table.schema.get_field_index(column)
        pyarrow.parquet.write_table(
            table.set_column(position, table.schema.field(column), [changed]), path / "metadata.parquet"
        )
        with pytest.raises(UserError, match=reason):
            exported(tmp_path, "copy", f"export.source={path}")
        with pytest.raises(UserError, match=reason):
            splits_of(f"dataset.root={path}")


def test_an_export_is_uploaded_as_a_dataset(expanded, tmp_path: Path, monkeypatch) -> None:
    calls = []

    class Hub:
        def create_repo(self, repo_id, **keys):
            calls.append(("create_repo", repo_id, keys))
            return f"https://hub/datasets/{repo_id}"

        def upload_folder(self, **keys):
            calls.append(("upload_folder", keys))

    path = expanded("made")
    with monkeypatch.context() as patch:
        patch.setattr(upload, "HfApi", Hub)
        copy = exported(tmp_path, "copy", f"export.source={path}", "export.repo_id=me/pets", "export.format=parquet")
    created, (_, uploaded) = calls
    assert created == ("create_repo", "me/pets", {"repo_type": "dataset", "private": True, "exist_ok": True})
    assert (uploaded["repo_id"], uploaded["repo_type"], uploaded["folder_path"]) == ("me/pets", "dataset", copy)
    with pytest.raises(UserError, match=r"^export\.repo_id=me/pets: it cannot be uploaded .* is whole") as caught:
        exported(tmp_path, "copy", f"export.source={path}", "export.repo_id=me/pets", "export.format=parquet")
    assert "\n" not in str(caught.value)  # without a network: what the hub's client says
    with pytest.raises(UserError, match=r"^export\.repo_id=a/b/c is not allowed: owner/name"):
        exported(tmp_path, "other", f"export.source={path}", "export.repo_id=a/b/c")
    assert not (tmp_path / "other").exists()
