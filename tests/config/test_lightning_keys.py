"""`trainer` and `callbacks` have the arguments of Lightning under Lightning's names, and refuse what the program gives."""

import inspect
from dataclasses import fields
from datetime import timedelta
from pathlib import Path

import lightning as L
import pytest
from conftest import compose, compose_once
from lightning.pytorch.callbacks import Callback, EarlyStopping, LearningRateMonitor, ModelCheckpoint
from lightning.pytorch.trainer.connectors.accelerator_connector import _LITERAL_WARN
from omegaconf import MISSING, DictConfig
from omegaconf.errors import ValidationError

from distdiff.classification.callback_keys import KEYS, MONITORED
from distdiff.classification.module import LOSS, VAL_ACCURACY, VAL_LOSS
from distdiff.classification.running import PROFILERS as CLASSES
from distdiff.classification.running import Running
from distdiff.errors import UserError
from distdiff.keys.limits import check_values
from distdiff.ranks import config as ours
from distdiff.ranks.trainer import build_trainer, torch_flags_kept

CALLBACKS = {"early_stopping": EarlyStopping, "checkpoint": ModelCheckpoint, "lr_monitor": LearningRateMonitor}
# What the program leaves out or chooses itself where Lightning has another default.
OWN_DEFAULTS = {
    *ours.OF_EVERY_STAGE,
    *("num_sanity_val_steps", "check_val_every_n_epoch", "enable_model_summary", "sync_batchnorm"),
}


def arguments(kind: type) -> dict[str, inspect.Parameter]:
    found = dict(inspect.signature(kind.__init__).parameters)
    return {name: each for name, each in found.items() if name != "self"}


def test_every_argument_of_lightnings_trainer_is_a_key_or_refused_with_a_reason() -> None:
    keys = {item.name for item in fields(ours.TrainerKeys)}
    assert keys | ours.REFUSED.keys() == arguments(L.Trainer).keys()
    assert not keys & ours.REFUSED.keys()


def test_defaults_of_the_trainer_are_lightnings() -> None:
    for name, default in ours.DEFAULTS.items():
        if name not in OWN_DEFAULTS:
            assert arguments(L.Trainer)[name].default == default, name
    assert [_LITERAL_WARN.__args__] == [("warn",)]
    assert CLASSES.keys() == set(ours.PROFILERS)


@pytest.mark.parametrize("name", KEYS)
def test_the_keys_of_a_callback_are_its_arguments_with_their_defaults(name: str) -> None:
    theirs = arguments(CALLBACKS[name])
    own = {item.name: item.default for item in fields(KEYS[name])}
    assert own.keys() == theirs.keys()
    for key, default in own.items():
        if default != MISSING and key != "mode":  # which follows the metric
            assert theirs[key].default == default, key
    assert {VAL_LOSS, VAL_ACCURACY, LOSS} == set(MONITORED)


@pytest.mark.parametrize("typed", ["trainer.max_steps=1", "+trainer.callbacks=1", "trainer.limit_predict_batches=1"])
def test_what_the_program_gives_is_refused_in_one_line_that_says_why(typed: str) -> None:
    with pytest.raises(UserError) as caught:
        compose("train", [typed, "logger=none"])
    place = typed.lstrip("+")
    assert str(caught.value) == f"{place} is not allowed: {ours.REFUSED[place[len('trainer.') : -2]]}"


@pytest.mark.parametrize("typed", ["expand gradient_clip_val=1", "measure profiler=simple", "pretrain min_steps=3"])
def test_keys_of_downstream_training_are_refused_where_there_is_none(typed: str) -> None:
    command, given = typed.split()
    with pytest.raises(
        UserError, match=rf"^trainer.{given} is not allowed: it is for the downstream training of train.py"
    ):
        compose(command, [f"trainer.{given}"])


VALUES = {
    "fast_dev_run": ([True, 3], [-1, "maybe", 0.5]),
    "max_time": (["00:01:00:00", "12:00:00:05"], [10, "1h", "00:10"]),
    "limit_train_batches": ([1, 0.5, 1.0], [0, 0.0, 1.5, -1, True]),
    "limit_val_batches": ([0, 2, 0.5, 0.0], [-1, 1.5, "all"]),
    "overfit_batches": ([0, 2, 0.2, 0.0], [-1, 2.5, True]),
    "val_check_interval": ([3, 0.25, 1.0, "00:00:10:00"], [0, 0.0, 1.5, "often", True]),
    "check_val_every_n_epoch": ([2, None], [0, 1.5]),
    "num_sanity_val_steps": ([-1, 2], [-2]),
    "accumulate_grad_batches": ([4, 1000], [0, 1001, 1.5]),
    "gradient_clip_val": ([0.5, 0], [-1.0, float("nan"), "much"]),
    "deterministic": ([True, "warn", None], [0, "yes"]),
    "profiler": (["simple", "advanced", "pytorch", None], ["xla", True]),
    "log_every_n_steps": ([1, 0], [-1]),
    "min_steps": ([5], [0]),
}


def checked(name: str, value: object) -> DictConfig:
    config = compose_once("train", ["logger=none"])
    config.trainer[name] = value
    check_values(ours.TrainerKeys, config.trainer, "trainer.")
    ours.check(config)
    return config.trainer


@pytest.mark.parametrize("name", VALUES)
def test_lightning_takes_what_a_trainer_key_allows_and_other_values_are_one_line(name: str, tmp_path: Path) -> None:
    allowed, refused = VALUES[name]
    for value in allowed:
        trainer = checked(name, value)
        running = Running(ours.training_arguments(trainer), folder=tmp_path)
        with torch_flags_kept():
            build_trainer(trainer, max_steps=5, **running.trainer_arguments(5, 20, 4, "train"))
    for value in refused:
        with pytest.raises((UserError, ValidationError)) as caught:
            checked(name, value)
        if isinstance(caught.value, UserError):
            assert str(caught.value).startswith(f"trainer.{name}={value} is not allowed: ")
            assert "\n" not in str(caught.value)


def built(*overrides: str) -> list[Callback]:
    config = compose_once("train", ["logger=csv", *overrides])
    running = Running(callbacks={name: dict(node) for name, node in config.callbacks.items() if node is not None})
    return running.build_callbacks(200, 20, 4, "train", logger=True)


def test_callbacks_are_chosen_alone_together_or_not_at_all() -> None:
    assert built() == []
    assert [type(each) for each in built("callbacks=lr_monitor")] == [LearningRateMonitor]
    stop, monitor, save = built("callbacks=[checkpoint,early_stopping,lr_monitor]")
    assert (stop.monitor, stop.mode, monitor.logging_interval) == ("val_loss", "min", "step")
    assert save._every_n_train_steps == 10


def test_keys_of_callbacks_reach_lightning() -> None:
    (stop,) = built("callbacks=early_stopping", "callbacks.early_stopping.monitor=val_accuracy")
    assert stop.mode == "max"
    (stop,) = built(
        "callbacks=early_stopping", "callbacks.early_stopping.patience=7", "callbacks.early_stopping.mode=max"
    )
    assert (stop.patience, stop.mode) == (7, "max")
    (save,) = built(
        "callbacks=checkpoint", "callbacks.checkpoint.every_n_epochs=2", "callbacks.checkpoint.save_last=true"
    )
    assert (save._every_n_train_steps, save.save_last) == (10, True)
    (save,) = built("callbacks=checkpoint", "callbacks.checkpoint.train_time_interval=01:02:00:00")
    assert save._train_time_interval == timedelta(days=1, hours=2)


REFUSED = {
    "callbacks=none": "callbacks=none is not allowed: one of checkpoint, early_stopping, lr_monitor",
    "callbacks=[early_stoping]": "did you mean early_stopping?",
    "callbacks={early_stopping: 1}": "callbacks takes the name of an option",
    "callbacks=lr_monitor logger=none": "callbacks=lr_monitor is not allowed with logger=none",
    "callbacks.early_stopping.patience=3": "that callback is not chosen; add callbacks=early_stopping",
    "callbacks=early_stopping callbacks.early_stopping.patient=3": "did you mean callbacks.early_stopping.patience?",
    "callbacks=early_stopping +callbacks.early_stopping.patient=3": "did you mean callbacks.early_stopping.patience?",
    "callbacks=early_stopping callbacks.early_stopping.patience=0": "a number at least 1",
    "callbacks=early_stopping callbacks.early_stopping.min_delta=nan": "is not allowed: a finite number",
    "callbacks=early_stopping callbacks.early_stopping.monitor=accuracy": "one of val_loss, val_accuracy, loss",
    "callbacks=checkpoint callbacks.checkpoint.save_top_k=2": "without callbacks.checkpoint.monitor",
    "callbacks=checkpoint callbacks.checkpoint.dirpath=''": "is not allowed: it is empty",
    "callbacks=checkpoint callbacks.checkpoint.train_time_interval=5m": "is not allowed: a time DD:HH:MM:SS",
    "callbacks=checkpoint callbacks.checkpoint.every_n_epochs=1 callbacks.checkpoint.every_n_train_steps=5": "Lightning takes "
    "one of them",
    "callbacks=early_stopping trainer.limit_val_batches=0": "with callbacks=early_stopping, which needs validation",
    "train.selection=validation trainer.limit_val_batches=0": "with train.selection=validation, which needs validation",
    "trainer.gradient_clip_algorithm=norm": "is not allowed without trainer.gradient_clip_val",
    "trainer.val_check_interval=2 trainer.check_val_every_n_epoch=2": "one of the two",
    "trainer.max_epochs=3": "trainer.max_epochs=3 is not allowed: here it is called train.epochs",
    "train.selection=best": "one of last, validation, best_on_test",
    "train.selection=best_on_test train.split=validation": "settings would be chosen by test images",
    "train.ckpt_path=''": "train.ckpt_path='' is not allowed: it is empty",
}


@pytest.mark.parametrize("typed", REFUSED)
def test_a_mistake_in_a_callback_or_a_selection_is_one_line(typed: str) -> None:
    overrides = [typed] if "{" in typed else typed.split(" ")
    with pytest.raises(UserError) as caught:
        compose("train", overrides if "logger" in typed or "lr_monitor" in typed else [*overrides, "logger=none"])
    assert REFUSED[typed] in str(caught.value)
    assert "\n" not in str(caught.value)


OF_OTHERS = {
    "run train.split=test": "study.split says on which images a study measures accuracy",
    "run train.ckpt_path=a.ckpt": "a study trains many classifiers",
    "run study.rows={a:[train.selection=best_on_test]} study.split=validation": "study.rows.a: train.selection=best",
    "run train.selection=best_on_test study.split=validation": "train.selection=validation, or study.split=test",
    "measure train.selection=validation": "the command measure has no train.selection",
    "expand callbacks=checkpoint": "the command expand has no callbacks",
}


@pytest.mark.parametrize("typed", OF_OTHERS)
def test_other_commands_refuse_what_only_train_reads(typed: str) -> None:
    command, *overrides = typed.split()
    with pytest.raises(UserError) as caught:
        compose(command, overrides)
    assert OF_OTHERS[typed] in str(caught.value)


def test_a_sweep_over_train_measures_validation_images_unless_told_otherwise() -> None:
    from distdiff.commands.configuration import configure_jobs

    assert compose("train", ["logger=none"]).train.split == "test"
    split = [config.train.split for config in configure_jobs("train", ["train.steps=3,5", "logger=none"])]
    assert split == ["validation"] * 2
