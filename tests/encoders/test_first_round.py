"""`encoder.guide.copies`: a guide that learns from a first round of unguided images, which are none of those it judges."""

import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import compose
from encoder_models import source_of
from PIL import Image

from distdiff.caching.stages import StageCache
from distdiff.classification.training import ClassifierTrainer, TrainingSet, few_shot_training_set
from distdiff.commands.expand import expand
from distdiff.data.datasets import load_dataset
from distdiff.encoders.guide import guide_recipe
from distdiff.errors import UserError
from distdiff.expansion.assembly import Assembly
from distdiff.expansion.first_round import lock_of
from distdiff.locking import held
from distdiff.store.reading import read_expanded

TWO_COPIES = ["encoder.guide.copies=2", "dataset.per_class=1"]


def few(config) -> TrainingSet:
    return few_shot_training_set(config, load_dataset(config.dataset).train, seed=0)


def first_rounds(outputs: Path) -> list[Path]:
    return sorted((outputs / "expanded").glob("digits-none-*"))


def pixels(folder: Path) -> list[np.ndarray]:
    return [np.asarray(Image.open(path)) for path in sorted(folder.glob("*/*.png"))]


def test_the_guide_is_the_classifier_of_the_real_images_and_their_copies(small_run: list[str], tmp_path: Path) -> None:
    config = compose("expand", [*small_run, *TWO_COPIES])
    data, cache = few(config), StageCache(config.paths.cache_dir)
    encoders = Assembly(config, cache).encoders
    assert not encoders.is_ready(data, 0)
    guide = encoders.encoder(data, 0, "guide")
    assert encoders.is_ready(data, 0)
    (made,) = first_rounds(tmp_path / "outputs")
    images = read_expanded(made, data.parts[0])
    assert len(images) == 2 * len(data)
    recipe = guide_recipe(config.encoder.guide, config.options)
    again = ClassifierTrainer(recipe, config.trainer, StageCache(tmp_path / "other")).train(
        data.with_part(images, "made"), 0, "the same images"
    )
    for name, tensor in again.state_dict().items():
        torch.testing.assert_close(tensor, guide.classifier.state_dict()[name], rtol=0, atol=0)
    assert encoders.identity(data, 0) != Assembly(compose("expand", small_run), cache).encoders.identity(data, 0)


def test_the_guide_judges_no_image_that_it_has_learnt(small_run: list[str], tmp_path: Path) -> None:
    unguided = compose("expand", [*small_run, *TWO_COPIES, "guidance=none", f"expansion.output_dir={tmp_path}/second"])
    second = expand(unguided, tmp_path)
    (first,) = first_rounds(tmp_path / "outputs")
    learnt, judged = pixels(first), pixels(second)
    assert len(learnt) == len(judged) == 20
    assert not any(np.array_equal(one, other) for one in learnt for other in judged)


def test_images_of_the_first_round_are_made_once_and_may_go_when_the_guide_is_there(
    small_run: list[str], tmp_path: Path
) -> None:
    config = compose("expand", [*small_run, *TWO_COPIES])
    data, cache = few(config), StageCache(config.paths.cache_dir)
    identity = Assembly(config, cache).encoders.identity(data, 0)
    Assembly(config, cache).encoders.encoder(data, 0, "guide")
    (first,) = first_rounds(tmp_path / "outputs")
    before = {path: path.stat().st_mtime_ns for path in first.glob("*/*.png")}
    longer = compose("expand", [*small_run, *TWO_COPIES, "encoder.guide.steps=4"])
    Assembly(longer, cache).encoders.encoder(data, 0, "guide")
    assert {path: path.stat().st_mtime_ns for path in first.glob("*/*.png")} == before
    for path in (*before, first / "metadata.parquet"):
        path.unlink()
    made = cache.made
    Assembly(config, cache).encoders.encoder(data, 0, "guide")
    assert (cache.made, Assembly(config, cache).encoders.identity(data, 0)) == (made, identity)


def test_a_process_waits_while_another_one_makes_the_first_round(small_run: list[str], tmp_path: Path, capsys) -> None:
    config = compose("expand", [*small_run, *TWO_COPIES])
    data, encoders = few(config), Assembly(config, StageCache(config.paths.cache_dir)).encoders
    encoders.encoder(data, 0, "guide")
    (made,) = first_rounds(tmp_path / "outputs")
    assert not lock_of(made).exists()
    found = []
    with held(lock_of(made)):
        waiting = threading.Thread(target=lambda: found.append(len(encoders.first_round.made(data, 0, "guide"))))
        waiting.start()
        waiting.join(0.5)
        assert waiting.is_alive()
    waiting.join(60)
    assert found == [30]
    assert "another process makes the images" in " ".join("".join(capsys.readouterr()).split())


def test_images_depend_on_the_first_round(small_run: list[str], tmp_path: Path) -> None:
    def path(*overrides: str) -> Path:
        config = compose("expand", [*small_run, "guidance=direct", *overrides])
        return Assembly(config, StageCache(config.paths.cache_dir)).job(few(config), 0).path

    paths = [path(), path("encoder.guide.copies=1"), path("encoder.guide.copies=2")]
    paths.append(path("encoder.guide.copies=2", "expansion.strength=0.9"))
    assert len({*paths}) == len(paths)
    assert path("encoder.guide.copies=0") == paths[0]


def test_copies_without_a_generator_or_a_training_are_refused(small_run: list[str], tmp_path: Path) -> None:
    config = compose("expand", small_run)
    with pytest.raises(UserError, match="there is no generator to make copies"):
        source_of("encoder.guide.copies=1").identity(few(config), 0)
    (tmp_path / "guide.safetensors").touch()
    typed = [f"encoder.checkpoint={tmp_path}/guide.safetensors", "encoder.guide.copies=1"]
    with pytest.raises(UserError, match=r"^encoder.guide.copies=1 is not allowed with encoder.checkpoint"):
        compose("expand", [*small_run, *typed])
