"""`method=mix`: two sources, a soft label, from the plan through every file to the loss."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest
import torch
from conftest import compose
from small_expansion import small_jobs
from torch.nn import functional as F

import distdiff
from distdiff.caching.stages import StageCache
from distdiff.classification.data import ClassificationData, ImageTensors
from distdiff.classification.mixing import CutMix, MixUp
from distdiff.classification.module import ClassifierTraining
from distdiff.classification.recipe import Recipe
from distdiff.classification.training import ClassifierTrainer, TrainingSet, training_set
from distdiff.commands.export import export
from distdiff.commands.train import train
from distdiff.data.datasets import load_dataset
from distdiff.data.images import LabelledImages
from distdiff.data.soft_labels import SoftLabels
from distdiff.data.sources.imagefolder import read_class_folders
from distdiff.errors import UserError
from distdiff.expansion.plan import ExpansionPlan
from distdiff.keys import build
from distdiff.methods.mix import Mix
from distdiff.store.reading import read_expanded

FORMATS = ("imagefolder", "webdataset", "parquet")


@pytest.fixture(params=FORMATS)
def mixed(request, small_run, image_folder, tmp_path: Path) -> Path:
    """The three training images of each of two classes, mixed three times each."""
    storage = f"expansion.format={request.param}"
    job = small_jobs(small_run, image_folder, tmp_path)("method=mix", "expansion.factor=3", storage)
    job.run("test")
    return job.path


def rows_of(path: Path) -> list[dict]:
    return pyarrow.parquet.read_table(path / "metadata.parquet").to_pylist()


def test_pixels_and_labels_are_mixed_by_one_weight(mixed: Path, image_folder: Path) -> None:
    """Oracle: the sources as `datasets`-free squares, averaged by the weights that the metadata name."""
    real, images = read_class_folders(str(image_folder)), read_expanded(mixed)
    names = [f"{real.class_names[label]}/{key}" for label, key in zip(real.labels, real.keys, strict=True)]
    weights = []
    for row, position in zip(rows_of(mixed), range(len(images)), strict=True):
        one, two = (real.tensor(names.index(name), 32, "crop") for name in row["sources"])
        (first, second), (weight, rest) = row["soft_labels"], row["soft_weights"]
        assert weight + rest == pytest.approx(1)
        assert weight > 0.5
        assert row["label"] == first != second
        assert [name.partition("/")[0] for name in row["sources"]] == [
            real.class_names[first],
            real.class_names[second],
        ]
        assert row["sources"][0] == f"{row['class_name']}/{row['source']}"
        expected = weight * one + (1 - weight) * two
        shown = torch.from_numpy(np.asarray(images.image(position)).copy()).permute(2, 0, 1) / 255
        assert (shown - expected).abs().max() <= 1 / 255
        weights.append(weight)
    assert len(set(weights)) == len(weights) == 18
    assert np.isnan([row["strength"] is None and np.nan for row in rows_of(mixed)]).all()


def test_a_soft_label_survives_filters_export_and_merging(mixed: Path, tmp_path: Path) -> None:
    def labels(path: Path) -> dict[tuple[str, int], tuple]:
        return {(r["source"], r["copy"]): (tuple(r["soft_labels"]), tuple(r["soft_weights"])) for r in rows_of(path)}

    (tmp_path / "run").mkdir()
    for name, keys in {
        "copied": [f"export.source={mixed}", "export.format=parquet"],
        "filtered": [f"export.source={mixed}", "export.where='copy < 1'"],
    }.items():
        target = tmp_path / name
        export(compose("export", [*keys, f"export.output_dir={target}"]), tmp_path / "run")
        expected = labels(mixed)
        wanted = expected if name == "copied" else {key: value for key, value in expected.items() if key[1] < 1}
        assert labels(target) == wanted
    reordered = tmp_path / "reordered"
    export(compose("export", [f"export.source={mixed}", f"export.output_dir={reordered}"]), tmp_path / "run")
    turn_classes_round(reordered)
    merged = tmp_path / "merged"
    sources = f"export.source=[{mixed},{reordered}]"
    export(compose("export", [sources, f"export.output_dir={merged}"]), tmp_path / "run")
    for row in rows_of(merged):  # both name the classes in the first one's order
        assert (tuple(row["soft_labels"]), tuple(row["soft_weights"])) == labels(mixed)[row["source"], row["copy"]]
    assert len(rows_of(merged)) == 36


def turn_classes_round(directory: Path) -> None:
    """The same dataset with its classes in another order."""
    names = json.loads((directory / "classes.json").read_text())
    (directory / "classes.json").write_text(json.dumps(names[::-1]))
    table = pyarrow.parquet.read_table(directory / "metadata.parquet")
    rows = table.to_pylist()
    for row in rows:
        row["label"] = 1 - row["label"]
        row["soft_labels"] = [1 - label for label in row["soft_labels"]]
    schema = table.schema.remove_metadata()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows, schema), directory / "metadata.parquet")


def test_soft_labels_that_cannot_be_are_one_line(mixed: Path) -> None:
    table = pyarrow.parquet.read_table(mixed / "metadata.parquet")
    rows = table.to_pylist()
    for wrong in ([0, 7], [0, -1], [0]):
        rows[3]["soft_labels"] = wrong
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows, table.schema), mixed / "metadata.parquet")
        with pytest.raises(
            UserError, match="invalid soft labels: allowed are classes from 0 to 1, with a positive weight each"
        ):
            read_expanded(mixed)


def test_load_expanded_gives_images_with_probabilities(mixed: Path) -> None:
    data = distdiff.load_expanded(mixed)
    assert (len(data), data.class_names, data.is_soft) == (18, ("cat", "train"), True)
    for (image, target), row in zip(data, rows_of(mixed), strict=True):
        assert image.shape == (3, 32, 32)
        expected = torch.zeros(2)
        expected[row["soft_labels"]] = torch.tensor(row["soft_weights"]).float()
        torch.testing.assert_close(target, expected)
    few = distdiff.load_expanded(mixed, transform=lambda image: image.size, where="copy < 1")
    assert (len(few), few[0][0]) == (6, (32, 32))
    with pytest.raises(UserError, match="is no expanded dataset"):
        distdiff.load_expanded(mixed.parent)


def test_the_loss_is_cross_entropy_with_probabilities(mixed: Path, image_folder: Path) -> None:
    """Oracle: −Σ p log softmax, in float64; originals beside them have one class."""
    config = compose("train", ["logger=none"])
    real = read_class_folders(str(image_folder))
    data = training_set(real, "crop").with_part(read_expanded(mixed, real), "mixed")
    tensors = ImageTensors(data.parts, 32, "crop")
    module = ClassifierTraining(build(config.classifier, 2), torch.nn.Identity(), Recipe.of(config))
    module.log = lambda *_: None
    module.classifier.eval()
    (batch, *_) = ClassificationData(tensors, None, 1, 40, seed=0).train_dataloader()
    images, targets = batch
    assert targets.shape == (40, 2)
    torch.testing.assert_close(targets.sum(1), torch.ones(40))
    assert (targets.max(1).values == 1).any()
    assert (targets.max(1).values < 1).any()
    logits = module.classifier(images).double()
    expected = -(targets.double() * (logits - logits.logsumexp(1, keepdim=True))).sum(1).mean()
    torch.testing.assert_close(module.training_step(batch, 0).double(), expected, atol=1e-5, rtol=0)


def test_a_classifier_trains_on_soft_labels_with_any_augmentation(mixed, small_run, image_folder, tmp_path) -> None:
    given = [item for item in small_run if item.startswith(("paths", "logger"))]
    given += ["dataset=imagefolder", f"dataset.root={image_folder}", f"train.expanded={mixed}", "train.steps=3"]
    for name in ("default", "mixup", "cutmix"):
        (tmp_path / name).mkdir()
        config = compose("train", [*given, f"augmentation={name}", "dataset.image_size=32", "classifier.input_size=32"])
        train(config, tmp_path / name)
        assert json.loads((tmp_path / name / "results.json").read_text())["num_train"] == 18 + 6


def test_the_heaviest_class_counts_where_soft_labels_are_tested_on(mixed, image_folder, tmp_path: Path) -> None:
    config = compose("train", ["logger=none", "train.steps=5"])
    classifiers = ClassifierTrainer(Recipe.of(config), config.trainer, StageCache(tmp_path / "cache"))
    soft, data = read_expanded(mixed), training_set(read_class_folders(str(image_folder)), "crop")
    classifier = classifiers.train(data, 0, "test")
    assert classifiers.test(classifier, soft, "crop") == classifiers.test(classifier, replace(soft, soft=None), "crop")
    order = classifiers.learning_order(TrainingSet((soft,), ("soft",), "crop"), 0, "test")
    assert np.isfinite(order).all()
    assert len(order) == 18


def test_images_that_share_a_source_are_never_on_both_sides_of_a_split(mixed: Path, capsys) -> None:
    splits = load_dataset(compose("train", ["dataset=expanded", f"dataset.root={mixed}", "logger=none"]).dataset)
    rows = {row["file_name"]: row for row in rows_of(mixed)}
    used = []
    for part in (splits.train, splits.validation, splits.test):
        names = [f"{part.class_names[label]}/{key}" for label, key in zip(part.labels, part.keys, strict=True)]
        own = {row["file_name"]: set(row["sources"]) for row in rows.values()}
        by_name = {name.rpartition(".")[0]: sources for name, sources in own.items()}
        used.append(set().union(*(by_name[keyed(name)] for name in names)) if names else set())
    assert used[0]
    assert not used[0] & used[1]
    assert not used[0] & used[2]
    assert not used[1] & used[2]
    assert "left out of a split: made of images that are on both sides of it" in capsys.readouterr().out


def keyed(name: str) -> str:
    from distdiff.store.names import safe_name

    class_name, _, key = name.partition("/")
    return f"{safe_name(class_name)}/{safe_name(key).rpartition('.')[0]}"


def test_mixup_and_cutmix_mix_targets_as_they_mix_pixels() -> None:
    """Oracle: images of one colour each, whose mean colour says how much of each there is."""
    torch.manual_seed(0)
    images = torch.arange(8.0).view(8, 1, 1, 1).expand(8, 3, 16, 16) / 8
    targets = torch.eye(8)
    for kind in (MixUp, CutMix):
        for _ in range(20):
            mixed, soft = kind(1.0, torch.nn.Identity())(images, targets)
            torch.testing.assert_close(soft.sum(1), torch.ones(8))
            torch.testing.assert_close(mixed.mean((1, 2, 3)), soft @ torch.arange(8.0) / 8, atol=1e-5, rtol=0)
        assert 1 < len({round(value, 3) for value in soft.flatten().tolist()}) <= 4


def images_of(*sizes: int) -> LabelledImages:
    labels = np.repeat(np.arange(len(sizes)), sizes)
    names = tuple(f"class {i}" for i in range(len(sizes)))
    return LabelledImages(
        "any", names, labels, tuple(f"{i}.png" for i in range(len(labels))), read=None, indices=np.arange(len(labels))
    )


def test_partners_are_of_other_classes_each_as_often_and_a_larger_factor_changes_none() -> None:
    images = images_of(3, 5, 4)
    plan = ExpansionPlan(images, 200, 0.5, 0, method=Mix(alpha=1.0))
    items = list(plan)
    assert all(images.labels[item.partners[0]] != item.label for item in items)
    of_first = [item.partners[0] for item in items if item.label == 0]
    counts = np.bincount(of_first, minlength=12)[3:]
    assert counts.min() > 0.6 * counts.mean()
    assert list(ExpansionPlan(images, 3, 0.5, 0, method=Mix(alpha=1.0))) == items[:36]
    alone = ExpansionPlan(images_of(3), 2, 0.5, 0, method=Mix(alpha=1.0))
    assert all(item.soft_label == ((0, 1.0),) and item.partners[0] != item.position for item in alone)


def test_weights_follow_the_folded_beta_distribution() -> None:
    """Closed form: the mean of max(u, 1 − u) for u ~ Beta(1, 1) is 3/4; a small α is near 1, a large one near 1/2."""
    for alpha, expected in ((1.0, 0.75), (0.01, 0.99), (100.0, 0.54)):
        plan = ExpansionPlan(images_of(50, 50), 20, 0.5, 0, method=Mix(alpha=alpha))
        weights = [item.soft_label[0][1] for item in plan]
        assert np.mean(weights) == pytest.approx(expected, abs=0.012)


def test_soft_labels_are_selected_with_their_images() -> None:
    soft = SoftLabels.of([((1, 0.7), (0, 0.3)), ((2, 1.0),)])
    chosen = soft.select(np.array([1, 0, 0]))
    torch.testing.assert_close(chosen.target(0, 3), F.one_hot(torch.tensor(2), 3).float())
    torch.testing.assert_close(chosen.target(2, 3), torch.tensor([0.3, 0.7, 0.0]))
