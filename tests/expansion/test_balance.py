"""`expansion.balance`: equal classes, by a plan that a larger factor only appends to, of the same images as without."""

import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest
from conftest import compose
from PIL import Image
from standin import interrupted, standin_job_of

from distdiff.classification.training import ClassifierTrainer, TrainingSet
from distdiff.commands.expand import expand
from distdiff.commands.preview import preview
from distdiff.data.images import LabelledImages
from distdiff.errors import UserError
from distdiff.expansion.plan import ExpansionPlan
from distdiff.store.directory import ExpandedDirectory
from distdiff.store.reading import read_expanded
from distdiff.store.shares import Share
from distdiff.study.study import Study

SIZES = (3, 7, 1, 0, 5)  # images of each class
CLASSES = len([size for size in SIZES if size])


def images_of(sizes: tuple[int, ...] = SIZES) -> LabelledImages:
    """So many images of each class, mixed up."""
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(len(sizes)), sizes))
    keys, names = tuple(f"{i}.png" for i in range(len(labels))), tuple(f"class {i}" for i in range(len(sizes)))
    return LabelledImages("any", names, labels, keys, read=None, indices=np.arange(len(labels)))


def plan_of(factor: int, balance: bool = True, sizes: tuple[int, ...] = SIZES, strength=0.5, seed=0) -> ExpansionPlan:
    return ExpansionPlan(images_of(sizes), factor, strength, seed, balance=balance)


@pytest.mark.parametrize("factor", [1, 2, 5])
def test_with_the_originals_all_classes_are_equal_and_sources_as_equal_as_can_be(factor: int) -> None:
    plan = plan_of(factor)
    items = list(plan)
    assert len(items) == len(plan) == sum(7 * (1 + factor) - size for size in SIZES if size)
    assert len({item.file_name for item in items}) == len({item.seed for item in items}) == len(items)
    for label, size in enumerate(SIZES):
        own = [item for item in items if item.label == label]
        assert size + len(own) == (7 * (1 + factor) if size else 0)
        copies = [
            [item.copy for item in own if item.position == p] for p in np.flatnonzero(plan.images.labels == label)
        ]
        assert all(sorted(numbers) == list(range(len(numbers))) for numbers in copies)
        numbers = sorted(map(len, copies))
        quota, more = divmod(len(own), max(size, 1))
        assert numbers == [quota] * (size - more) + [quota + 1] * more


@pytest.mark.parametrize("sizes", [SIZES, (1, 2, 9), (4, 4, 4), (13,), (11, 1, 6, 10)])
def test_a_larger_factor_only_appends(sizes: tuple[int, ...]) -> None:
    names = [list(plan_of(factor, sizes=sizes).file_names()) for factor in range(1, 7)]
    for smaller, larger in pairwise(names):
        assert larger[: len(smaller)] == smaller
        assert len(larger) - len(smaller) == max(sizes) * np.count_nonzero(sizes)


@pytest.mark.parametrize("strength", [0.5, [0.3, 0.6, 0.9], {"low": 0.2, "high": 0.8}])
def test_an_image_is_what_it_would_be_without_balance(strength) -> None:
    proportional, balanced = (list(plan_of(2, balance, strength=strength)) for balance in (False, True))
    by_name = {item.file_name: item for item in balanced}
    assert all(by_name[item.file_name] == item for item in proportional)
    even = [set(plan_of(3, balance, (4, 4, 4), strength)) for balance in (False, True)]
    assert even[0] == even[1]


def test_which_sources_get_a_copy_more_follows_from_the_seed_not_from_names() -> None:
    """A class of 7 beside one of 10 gets 13 images at factor 1: six of its sources get two, one gets one."""
    left_out = set()
    for seed in range(30):
        own = [item for item in plan_of(1, sizes=(10, 7), seed=seed) if item.label == 1]
        (source,) = {item.source for item in own} - {item.source for item in own if item.copy == 1}
        left_out.add(source)
    assert len(left_out) > 3
    images = images_of((10, 7))
    plans = [ExpansionPlan(part, 1, 0.5, 0, balance=True) for part in (images, images.select(range(17)[::-1]))]
    assert list(plans[0].file_names()) == list(plans[1].file_names())  # whatever the order of the sources


def test_a_balanced_plan_is_put_into_batches_and_shares_and_loses_nothing() -> None:
    plan = plan_of(3, strength=[0.3, 0.9])
    assert [item.file_name for item in plan] == list(plan.file_names())
    done = {plan[i].file_name for i in range(0, len(plan), 3)}
    missing = plan.missing(done)
    assert missing.tolist() == [i for i in range(len(plan)) if i % 3]
    parts = [Share(split, 3, rank, 2).of(missing) for split in range(3) for rank in range(2)]
    assert sorted(np.concatenate(parts)) == missing.tolist()
    batches = [batch for part in parts for batch in plan.batches(part, 4, group=lambda strength: int(strength * 10))]
    assert sorted(np.concatenate(batches)) == missing.tolist()
    assert all(len({plan[i].strength for i in batch}) == 1 and len(batch) <= 4 for batch in batches)
    empty = ExpansionPlan(images_of((0, 0)), 2, 0.5, 0, balance=True)
    assert (len(empty), list(empty.file_names()), empty.batches(empty.missing(()), 4, float)) == (0, [], [])


@pytest.mark.parametrize("storage", ["imagefolder", "parquet"])
def test_splits_a_crash_and_a_larger_factor_make_each_image_once(tmp_path: Path, monkeypatch, storage: str) -> None:
    def job(folder: str, *keys: str):
        given = ["logger=none", "expansion.balance=true", f"expansion.format={storage}", "expansion.shard_size=6"]
        return standin_job_of(images_of(), compose("expand", [*given, *keys]), tmp_path / folder)

    def count(folder: Path) -> dict:
        return json.loads((folder / "manifest.json").read_text())["counts"]

    splits, factor = ("expansion.batch_size=4", "expansion.total_split=2"), "expansion.factor=1"
    first, made = job("made", *splits, factor, "expansion.split=0")
    interrupted(first, monkeypatch, batches=2)
    assert len(made.made) == 12  # the last batch of four was lost
    made = made.made[:8]
    for split in ("0", "1"):
        rest, synthesizer = job("made", *splits, factor, f"expansion.split={split}")
        rest.run("test")
        made += synthesizer.made
    assert sorted(made) == sorted(first.plan.file_names())
    total = 7 * 2 * CLASSES - sum(SIZES)
    expected = {"sources": 16, "factor": 1, "classes": 5, "unreadable": 0, "failed": 0, "images": total}
    assert count(rest.path) == expected
    assert f"{total} images: of 16 source images, so many that each class has 14 with" in _card(rest.path)
    small = read_expanded(rest.path)

    larger, synthesizer = job("made", "expansion.factor=3")
    larger.run("test")
    assert sorted(made + synthesizer.made) == sorted(larger.plan.file_names())
    assert (count(larger.path)["factor"], count(larger.path)["images"]) == (3, 7 * 4 * CLASSES - sum(SIZES))
    part = read_expanded(larger.path, contents=first.plan)
    assert part.keys == small.keys  # in the same order, so that training is the same
    assert all(np.array_equal(part.image(i), small.image(i)) for i in range(len(part)))


def _card(folder: Path) -> str:
    return (folder / "README.md").read_text()


def test_what_a_larger_unfinished_factor_left_is_counted_to_it(tmp_path: Path) -> None:
    def job(factor: int, *keys: str):
        given = ["logger=none", "expansion.balance=true", f"expansion.factor={factor}", *keys]
        return standin_job_of(images_of(), compose("expand", given), tmp_path / "made")[0]

    assert job(3, "expansion.split=1", "expansion.total_split=2").run("test") > 0
    job(1).run("test")
    counts = json.loads((tmp_path / "made/manifest.json").read_text())["counts"]
    assert counts["factor"] == 3
    for factor in range(1, 5):
        rows = [{"class_name": i.class_name, "source": i.source, "copy": i.copy} for i in plan_of(factor)]
        assert plan_of(1).factor_with(rows) == plan_of(factor).factor_with(rows[:1]) == factor
        assert plan_of(1, False).factor_with([row for row in rows if row["copy"] < factor]) == factor


@pytest.fixture
def digits_folder(tmp_path: Path) -> Path:
    """Two classes with one and with three images to train on, and a file that is none; two each to test on."""
    rng = np.random.default_rng(0)
    for split, sizes in (("train", (1, 3)), ("test", (2, 2))):
        for name, size in zip(("0", "1"), sizes, strict=True):
            for number in range(size):
                path = tmp_path / "digits" / split / name / f"{number}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(path)
    (tmp_path / "digits/train/1/broken.png").write_bytes(b"no image")
    return tmp_path / "digits"


def keys_for(folder: Path, place: Path) -> list[str]:
    return [
        "dataset=imagefolder",
        f"dataset.root={folder}",
        "dataset.validation_fraction=0",
        "generator.num_steps=4",
        "expansion.factor=1",
        "expansion.batch_size=1",
        "encoder.guide.steps=3",
        "logger=none",
        f"paths.output_dir={place}/outputs",
    ]


def test_balance_has_its_own_directory_of_the_same_images(digits_folder: Path, tmp_path: Path) -> None:
    """With the embedded generator, an image at a time: byte for byte."""
    (tmp_path / "run").mkdir()
    keys = keys_for(digits_folder, tmp_path)
    plain, balanced = (
        expand(compose("expand", [*keys, f"expansion.balance={balance}"]), tmp_path / "run")
        for balance in ("false", "true")
    )
    assert plain != balanced
    files = [{p.relative_to(d).as_posix(): p.read_bytes() for p in d.glob("*/*.png")} for d in (plain, balanced)]
    assert (len(files[0]), len(files[1])) == (4, 5 + 3)
    assert files[0].items() < files[1].items()
    manifests = [ExpandedDirectory(path).manifest() for path in (plain, balanced)]
    assert "balance" not in manifests[0]["ingredients"]
    assert [manifest["counts"]["unreadable"] for manifest in manifests] == [1, 1]
    assert manifests[1]["ingredients"] == manifests[0]["ingredients"] | {"balance": True}
    with pytest.raises(UserError, match=r"another configuration \(balance: None there, True here\)"):
        expand(compose("expand", [*keys, "expansion.balance=true", f"expansion.output_dir={plain}"]), tmp_path / "run")
    (tmp_path / "preview").mkdir()
    sheets = ["preview.sources=1", "preview.strengths=[0.5]"]
    preview(compose("preview", [*keys, "expansion.balance=true", *sheets]), tmp_path / "preview")
    assert json.loads((tmp_path / "preview/preview.json").read_text())["estimate"]["images"] == 8


def test_every_row_of_a_study_has_equal_classes_whatever_a_directory_holds(
    digits_folder: Path, tmp_path: Path, monkeypatch
) -> None:
    """Of the first study, with a larger factor, the second one finds more images than are its own."""
    trained: list[TrainingSet] = []

    def recording(self, data, seed, title, logger=False):
        trained.append(data)
        return train_together(self, data, seed, title, logger)

    train_together = ClassifierTrainer.train_together
    monkeypatch.setattr(ClassifierTrainer, "train_together", recording)
    study = ["study.methods=[original,randaugment,none]", "study.seeds=1", "measure.judge_steps=3", "train.steps=3"]
    keys = [*keys_for(digits_folder, tmp_path), *study, "expansion.balance=true"]
    identities: set[str] = set()
    for factor in (2, 1):
        trained.clear()
        run = tmp_path / f"run-{factor}"
        run.mkdir()
        study = Study(compose("run", [*keys, f"expansion.factor={factor}"]), run)
        results = study.run(study.plan())
        assert [row.runs[0].num_train for row in results.rows] == [4, 6 * (1 + factor), 6 * (1 + factor)]
        for data in trained[1:]:
            counts = np.bincount(np.concatenate([part.labels for part in data.parts]))
            assert counts.tolist() == [3 * (1 + factor)] * 2
            identities.add(data.fingerprints[1])
        guided = results.row("none").runs[0]
        rows = pyarrow.parquet.read_table(Path(guided.expanded) / "metadata.parquet").to_pylist()
        assert len(rows) == 6 * 3 - 4
        energies = [row["energy_after"] for row in rows if row["file_name"] in trained[2].parts[1].keys]
        assert guided.measures["energy_after"] == pytest.approx(float(np.median(energies)))
    assert len(identities) == 4  # of two methods, each with other images for each factor
