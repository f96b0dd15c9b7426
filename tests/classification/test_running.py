"""How downstream training runs: Lightning's arguments and callbacks, resuming, and which weights are kept."""

import os
import tempfile
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import yaml
from conftest import compose_once
from lightning.pytorch.loggers import CSVLogger
from omegaconf import DictConfig, OmegaConf
from torch import nn
from torch.utils.data import DataLoader

from distdiff.caching.stages import StageCache
from distdiff.classification.module import ClassifierTraining
from distdiff.classification.networks import ImageClassifier
from distdiff.classification.recipe import Recipe
from distdiff.classification.running import Running, evenly
from distdiff.classification.selecting import BestWeights
from distdiff.classification.training import ClassifierTrainer, TrainingSet, training_set
from distdiff.data.images import DatasetSplits
from distdiff.data.sources import digits
from distdiff.errors import UserError
from distdiff.ranks.trainer import CUBLAS, build_trainer, torch_flags_kept

SMALL = ["train.steps=12", "train.batch_size=4", "classifier.input_size=8", "logger=none"]
EVERY = "callbacks.checkpoint.every_n_train_steps"


@cache
def splits() -> DatasetSplits:
    """A few digits: 15 to train on, and 20 of each of the other splits."""
    found = digits.load(name="digits", split_seed=0)
    return DatasetSplits(
        found.train.select(range(15)),
        found.validation.select(balanced(found.validation.labels)),
        found.test.select(balanced(found.test.labels)),
    )


def balanced(labels: np.ndarray, of_class: int = 2) -> list[int]:
    return sorted(int(i) for label in range(10) for i in np.flatnonzero(labels == label)[:of_class])


@cache
def data() -> TrainingSet:
    return training_set(splits().train, "squash")


def config_of(*overrides: str) -> DictConfig:
    """As if these overrides were composed, in far less time: options are, and keys are set afterwards."""
    options = [each for each in overrides if "." not in each.partition("=")[0]]
    config = compose_once("train", [*SMALL, *options])
    for key, _, value in (each.partition("=") for each in overrides if each not in options):
        OmegaConf.update(config, key, yaml.safe_load(value))
    return config


def trainer(place: Path, *overrides: str, cache_dir: str = "cache") -> ClassifierTrainer:
    config = config_of(*overrides)
    running = Running.of(config, splits(), place)
    return ClassifierTrainer(Recipe.of(config), config.trainer, StageCache(place / cache_dir), running)


def weights(place: Path, *overrides: str, cache_dir: str = "cache") -> dict[str, torch.Tensor]:
    """The weights of a training, which is in no other cache."""
    return trainer(place, *overrides, cache_dir=cache_dir).train(data(), 0, "train").state_dict()


def equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(one[name], other[name]) for name in one)


def checkpoints(place: Path) -> dict[int, Path]:
    return {int(path.stem.rpartition("=")[2]): path for path in (place / "checkpoints").glob("*.ckpt")}


@pytest.fixture
def steps_made(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of training batches that were seen, as a list's length."""
    made: list[int] = []
    seen = ClassifierTraining.training_step

    def count(self: ClassifierTraining, batch: object, index: int) -> torch.Tensor:
        made.append(index)
        return seen(self, batch, index)

    monkeypatch.setattr(ClassifierTraining, "training_step", count)
    return made


SAVED = [f"{EVERY}=5", "callbacks.checkpoint.save_top_k=-1"]
RESUMED = {
    "plain": [],
    "other draws": ["augmentation=randaugment"],
    "mixing": ["augmentation=cutmix"],
    "accumulated": ["trainer.accumulate_grad_batches=3"],
    "ended early": ["trainer.limit_train_batches=7"],
    "the same batches": ["trainer.overfit_batches=5"],
    "selection": ["train.selection=validation"],
    "selection now and then": ["train.selection=validation", "trainer.val_check_interval=4"],
    "early stopping": ["callbacks=[checkpoint,early_stopping]", "callbacks.early_stopping.patience=6"],
}
RESUMED["early stopping"] += ["callbacks.early_stopping.monitor=val_accuracy", "optimizer.learning_rate=0.1"]


@pytest.mark.parametrize("kind", RESUMED)
def test_a_resumed_training_has_the_weights_of_an_uninterrupted_one(
    tmp_path: Path, kind: str, steps_made: list[int]
) -> None:
    chosen = ["callbacks=[checkpoint]", *RESUMED[kind]]
    whole = weights(tmp_path, *chosen, *SAVED)
    in_all, saved = len(steps_made), checkpoints(tmp_path)
    assert {5, 10} & saved.keys()
    for step, path in saved.items():
        steps_made.clear()
        resumed = weights(tmp_path / f"from {step}", *chosen, f"train.ckpt_path='{path}'")
        assert equal(whole, resumed)
        assert len(steps_made) == in_all - step * (3 if kind == "accumulated" else 1)


REFUSED = {
    "no file": (lambda path: None, "there is no such file; give a checkpoint that train.py wrote"),
    "a text": (lambda path: path.write_text("hello"), "it is a text, not weights"),
    "cut short": (lambda path: path.write_bytes(written().read_bytes()[:5000]), "train.ckpt_path="),
    "weights alone": (lambda path: torch.save({"state_dict": {}, "loops": {}}, path), "it holds weights alone"),
    "no checkpoint": (lambda path: torch.save([1, 2], path), "it is no checkpoint of Lightning"),
    "not ours": (lambda path: torch.save({"state_dict": {}, "optimizer_states": []}, path), "it is not ours"),
    "code": (lambda path: torch.save({"state_dict": SimpleNamespace()}, path), "it cannot be read as a checkpoint"),
}


@cache
def written() -> Path:
    """A checkpoint of the 5th step."""
    place = Path(tempfile.mkdtemp())
    weights(place, *with_saving())
    return checkpoints(place)[5]


def with_saving() -> list[str]:
    return ["callbacks=[checkpoint]", *SAVED]


@pytest.mark.parametrize("kind", REFUSED)
def test_a_file_that_is_no_checkpoint_is_one_line(tmp_path: Path, kind: str) -> None:
    make, message = REFUSED[kind]
    path = tmp_path / "a.ckpt"
    make(path)
    with pytest.raises(UserError) as caught:
        weights(tmp_path, f"train.ckpt_path='{path}'")
    assert str(caught.value).startswith(f"train.ckpt_path={path} is not allowed: ")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


OTHERS = {
    "classifier=resnet18": "it is of another architecture than the classifier keys give (",
    "optimizer.learning_rate=0.01": "it is of another training: recipe.learning_rate 0.002, now 0.01",
    "train.steps=13": "it is of another training: recipe.steps 12, now 13",
    "trainer.gradient_clip_val=1": "it is of another training: trainer.gradient_clip_val none, now 1.0",
    "train.selection=validation": "selection none, now validation",
}


@pytest.mark.parametrize("other", OTHERS)
def test_a_checkpoint_of_another_training_is_one_line_that_says_what_differs(tmp_path: Path, other: str) -> None:
    with pytest.raises(UserError) as caught:
        weights(tmp_path, f"train.ckpt_path='{written()}'", other)
    assert OTHERS[other] in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_checkpoint_of_other_images_is_refused_also_if_the_classifier_is_in_the_cache(tmp_path: Path) -> None:
    of = trainer(tmp_path, f"train.ckpt_path='{written()}'")
    fewer = training_set(splits().train.select(range(12)), "squash")
    trainer(tmp_path).train(fewer, 0, "train")
    assert of.has(fewer, 0)
    with pytest.raises(UserError, match=r"it is of another training: data \["):
        of.train(fewer, 0, "train")


UNCHANGED = [
    ["callbacks=[checkpoint]", "callbacks.checkpoint.monitor=val_loss", "trainer.val_check_interval=1"],
    ["callbacks=[lr_monitor]", "logger=csv"],
    ["trainer.log_every_n_steps=1", "trainer.detect_anomaly=true", "trainer.num_sanity_val_steps=2"],
    ["trainer.profiler=simple", "trainer.limit_train_batches=1.0", "trainer.deterministic=false"],
    ["callbacks=[checkpoint]", "callbacks.checkpoint.save_last=true", "trainer.inference_mode=false"],
]


@pytest.mark.parametrize("chosen", UNCHANGED, ids=str)
def test_what_only_watches_a_training_changes_neither_its_weights_nor_its_identity(
    tmp_path: Path, chosen: list[str]
) -> None:
    config = config_of(*chosen)
    running = Running.of(config, splits(), tmp_path)
    watched = ClassifierTrainer(Recipe.of(config), config.trainer, StageCache(tmp_path / "cache"), running)
    bare = trainer(tmp_path, cache_dir="bare")
    logger = CSVLogger(tmp_path) if "logger=csv" in chosen else False
    assert watched.fingerprint(data(), 0) == bare.fingerprint(data(), 0)
    one, other = watched.train(data(), 0, "train", logger), bare.train(data(), 0, "train")
    assert equal(one.state_dict(), other.state_dict())
    if "trainer.profiler=simple" in chosen:
        assert "run_training_batch" in (tmp_path / "fit-profile-train.txt").read_text()


CHANGING = {
    "trainer.gradient_clip_val=0.1": True,
    "trainer.accumulate_grad_batches=2": True,
    "trainer.limit_train_batches=3": True,
    "trainer.overfit_batches=3": True,
    "trainer.fast_dev_run=3": True,
    "trainer.max_time=00:01:00:00": False,  # it would have to end first
    "trainer.min_steps=3": False,
    "callbacks=[early_stopping]": False,
    "train.selection=validation": False,
}


@pytest.mark.parametrize("change", CHANGING)
def test_what_can_change_a_training_is_part_of_its_identity_and_reaches_lightning(tmp_path: Path, change: str) -> None:
    other, bare = trainer(tmp_path, change), trainer(tmp_path)
    assert other.fingerprint(data(), 0) != bare.fingerprint(data(), 0)
    without = ClassifierTrainer(
        other.recipe, other.trainer_config, other.cache
    )  # as the guide and the judge are trained
    assert without.fingerprint(data(), 0) == bare.fingerprint(data(), 0)
    if CHANGING[change]:
        one, two = (each.train(data(), 0, "train").state_dict() for each in (other, bare))
        assert not equal(one, two)


def test_early_stopping_ends_a_training_whose_metric_does_not_improve(tmp_path: Path, steps_made: list[int]) -> None:
    chosen = [
        "callbacks=[early_stopping]",
        "callbacks.early_stopping.min_delta=1",
        "callbacks.early_stopping.patience=3",
    ]
    weights(tmp_path, *chosen)
    assert len(steps_made) == 4
    steps_made.clear()
    weights(tmp_path, *chosen, "callbacks.early_stopping.monitor=loss", "trainer.min_steps=7", cache_dir="two")
    assert len(steps_made) == 7


@pytest.mark.parametrize("accumulated", [1, 3])
def test_steps_are_optimizer_steps_however_many_batches_they_have(
    tmp_path: Path, steps_made: list[int], accumulated: int
) -> None:
    """Two equal halves of a batch, accumulated, are a step of the whole batch for a network without batch norm."""
    found = weights(tmp_path, f"trainer.accumulate_grad_batches={accumulated}")
    assert len(steps_made) == 12 * accumulated
    assert found["backbone.1.num_batches_tracked"] == 12 * accumulated


def test_gradients_of_accumulated_batches_are_those_of_one_large_batch() -> None:
    """In float64, on a network without batch normalization; the plain loop is torch's own."""
    images, labels = torch.rand(12, 3, 8, 8, dtype=torch.float64), torch.arange(12) % 10
    losses = {}
    for accumulated, size in ((1, 6), (2, 3)):
        network = plain_network()
        batches = [(images[i : i + size], labels[i : i + size]) for i in range(0, 12, size)]
        found = build_trainer(
            compose_once("train", SMALL).trainer,
            max_steps=2,
            accumulate_grad_batches=accumulated,
            limit_val_batches=0,
            enable_progress_bar=False,
        )
        recipe = Recipe.of(compose_once("train", SMALL))
        module = ClassifierTraining(network, nn.Identity(), recipe)
        found.fit(module.double(), DataLoader(batches, batch_size=None))
        losses[accumulated] = network.state_dict()
    for name, weight in losses[1].items():
        torch.testing.assert_close(weight, losses[2][name], rtol=0, atol=1e-12)


def plain_network() -> nn.Module:
    torch.manual_seed(0)
    network = ImageClassifier(nn.Flatten(), 3 * 8 * 8, 10, 8, mean=0.5, std=0.5)
    return network


def test_torch_computes_after_a_deterministic_training_as_before(tmp_path: Path) -> None:
    before = torch.are_deterministic_algorithms_enabled(), os.environ.get(CUBLAS)
    inside = []
    with torch_flags_kept():
        build_trainer(compose_once("train", SMALL).trainer, deterministic=True)
        inside.append(torch.are_deterministic_algorithms_enabled())
    weights(tmp_path, "trainer.deterministic=true", "trainer.benchmark=true")
    assert inside == [True]
    assert (torch.are_deterministic_algorithms_enabled(), os.environ.get(CUBLAS)) == before
    assert not torch.backends.cudnn.benchmark


def test_the_best_weights_are_those_of_the_check_with_the_highest_accuracy(tmp_path: Path) -> None:
    """Of every step's weights, which checkpoints keep, tested one by one."""
    every = [
        "callbacks=[checkpoint]",
        f"{EVERY}=1",
        "callbacks.checkpoint.save_top_k=-1",
        "optimizer.learning_rate=0.02",
    ]
    for selection, split in (("validation", splits().validation), ("best_on_test", splits().test)):
        place = tmp_path / selection
        of = trainer(place, *every, f"train.selection={selection}")
        best = of.train(data(), 0, "train")
        accuracies = {}
        for step, path in checkpoints(place).items():
            held = torch.load(path, weights_only=True)["state_dict"]
            best_so_far = of._untrained(data())
            best_so_far.load_state_dict({name.removeprefix("classifier."): each for name, each in held.items()})
            accuracies[step] = of.accuracy(best_so_far.eval(), split, "squash")
        assert len(accuracies) == 12
        assert len(set(accuracies.values())) > 2
        assert of.accuracy(best, split, "squash") == max(accuracies.values())


def test_checks_are_about_twenty_and_the_last_step_is_one_of_them_where_possible() -> None:
    for count in range(1, 3000):
        assert 1 <= evenly(count) <= count
        assert 13 <= count // evenly(count) <= 40 or count < 40
    assert [evenly(count) for count in (200, 300, 1000, 2000)] == [10, 15, 50, 100]


@pytest.mark.parametrize(
    ("given", "every"),
    [
        ([], 1),
        (["trainer.val_check_interval=5"], 5),
        (["trainer.val_check_interval=0.5"], 6),
        (["trainer.check_val_every_n_epoch=1"], 4),
        (["trainer.check_val_every_n_epoch=3"], 12),
    ],
)
def test_checks_come_as_often_as_the_trainer_keys_say(
    tmp_path: Path, given: list[str], every: int, monkeypatch
) -> None:
    """15 images in batches of 4 are an epoch of 4 batches."""
    seen = []
    log = BestWeights.on_validation_end
    note = lambda self, trainer, module: (seen.append(trainer.global_step), log(self, trainer, module))  # noqa: E731
    monkeypatch.setattr(BestWeights, "on_validation_end", note)
    weights(tmp_path, "train.selection=validation", *given)
    assert seen == list(range(every, 13, every))


@pytest.mark.parametrize("given", ["trainer.check_val_every_n_epoch=4", "trainer.val_check_interval=13"])
def test_checks_after_the_end_of_a_training_are_refused(tmp_path: Path, given: str) -> None:
    with pytest.raises(UserError, match=rf"^{given} is not allowed: the training has 12 batches"):
        weights(tmp_path, "train.selection=validation", given)


def test_a_share_that_is_no_batch_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^trainer: You requested to check 0.01 of the"):
        weights(tmp_path, "trainer.limit_train_batches=0.01")


def test_the_same_seed_gives_the_same_accuracy_twice(tmp_path: Path) -> None:
    chosen = ["train.selection=validation", "trainer.gradient_clip_val=1"]
    found = [weights(tmp_path, *chosen, cache_dir=str(number)) for number in range(2)]
    assert equal(*found)
