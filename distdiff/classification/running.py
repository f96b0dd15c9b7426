"""How the training of a downstream classifier runs, beyond its recipe: Lightning's arguments, callbacks, and selection."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

from lightning.pytorch.callbacks import Callback, EarlyStopping, LearningRateMonitor
from lightning.pytorch.loggers import Logger
from lightning.pytorch.profilers import AdvancedProfiler, Profiler, PyTorchProfiler, SimpleProfiler
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from omegaconf import DictConfig

from distdiff.caching.fingerprint import plain
from distdiff.classification.callback_keys import CHECKPOINT, EARLY_STOPPING, LR_MONITOR, VAL_ACCURACY, chosen
from distdiff.classification.config import BEST_ON_TEST, LAST
from distdiff.classification.resuming import Checkpoints
from distdiff.classification.selecting import BestWeights
from distdiff.data.images import DatasetSplits, LabelledImages
from distdiff.data.readable import readable
from distdiff.data.splits.carving import TEST, VALIDATION, check_measurable
from distdiff.errors import UserError, first_line
from distdiff.ranks.config import NEUTRAL, training_arguments

CHECKS = 20  # approximate number of times in a training that accuracy on the watched images is measured
ENDING = ("fast_dev_run", "max_time", "limit_train_batches")  # arguments that end a training before its last step
PROFILERS: Mapping[str, type[Profiler]] = {
    "simple": SimpleProfiler,
    "advanced": AdvancedProfiler,
    "pytorch": PyTorchProfiler,
}


@dataclass(frozen=True)
class Running:
    """What holds for downstream training alone; by default, training runs as that of the guide and of the judge does.

    - `arguments`: the arguments of `lightning.Trainer` that do not have their default.
    - `callbacks`: the keys of the chosen callbacks of Lightning.
    - `selection`: which weights are kept (`train.selection`).
    - `watched`: the images on which `val_loss` and `val_accuracy` are measured while the classifier is trained, with
      their identity; None if nothing asks for them.
    - `ckpt_path`: a checkpoint from which the training is resumed.
    - `folder`: where checkpoints and profiles are written.
    """

    arguments: Mapping[str, Any] = field(default_factory=dict)
    callbacks: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    selection: str = LAST
    watched: tuple[LabelledImages, str] | None = None
    ckpt_path: str | None = None
    folder: Path = Path()

    @classmethod
    def of(cls, config: DictConfig, splits: DatasetSplits, run_dir: Path) -> "Running":
        """The running that the `trainer`, `callbacks` and `train` keys choose.

        Raises `UserError` if the images that are to be watched have no image of some class.
        """
        callbacks = {name: plain(node) for name, node in chosen(config).items()}
        selection = config.train.selection
        watched = None
        if selection != LAST or any(keys.get("monitor") for keys in callbacks.values()):
            split = TEST if selection == BEST_ON_TEST else VALIDATION
            watched = readable(getattr(splits, split), split)
            check_measurable(watched[0], split, config.dataset.num_folds)
        return cls(training_arguments(config.trainer), callbacks, selection, watched, config.train.ckpt_path, run_dir)

    @property
    def accumulated(self) -> int:
        """The number of batches of an optimizer step."""
        return self.arguments.get("accumulate_grad_batches", 1)

    def repeated(self, batches: int) -> int:
        """How many of the first `batches` are repeated again and again (`trainer.overfit_batches`); 0 if none are."""
        return _part(self.arguments.get("overfit_batches", 0), batches)

    def asks_for_training(self) -> str | None:
        """The key that has an effect only if something is trained, with its value; None if there is none."""
        if self.ckpt_path is not None:
            return f"train.ckpt_path={self.ckpt_path}"
        if profiler := self.arguments.get("profiler"):
            return f"trainer.profiler={profiler}"
        watching = [name for name in (CHECKPOINT, LR_MONITOR) if name in self.callbacks]
        return f"callbacks={watching[0]}" if watching else None

    @property
    def may_end_early(self) -> bool:
        """Whether a training may end before the last of its steps."""
        return EARLY_STOPPING in self.callbacks or any(name in self.arguments for name in ENDING)

    @property
    def saves(self) -> bool:
        """Whether checkpoints are written or read."""
        return CHECKPOINT in self.callbacks or self.ckpt_path is not None

    def identity(self) -> dict[str, Any]:
        """What can change the trained weights; empty if all keys have their defaults."""
        found: dict[str, Any] = {}
        changing = {name: value for name, value in self.arguments.items() if name not in NEUTRAL}
        stops = self.callbacks.get(EARLY_STOPPING)
        if changing:
            found["trainer"] = changing
        if stops is not None:
            found[EARLY_STOPPING] = stops
        if self.selection != LAST:
            found["selection"] = self.selection
        if stops is not None or self.selection != LAST:
            checks = ("limit_val_batches", "val_check_interval", "check_val_every_n_epoch")
            found["watched"] = self.watched[1]
            found["checks"] = {name: self.arguments[name] for name in checks if name in self.arguments}
        return found

    def trainer_arguments(self, steps: int, images: int, batch_size: int, title: str) -> dict[str, Any]:
        """The arguments of a Lightning trainer that trains for `steps` optimizer steps on `images` training images.

        Raises `UserError` if the watched images would never be looked at.
        """
        given: dict[str, Any] = {"num_sanity_val_steps": 0, "min_epochs": 0, **self.arguments}
        batches, limit = steps * self.accumulated, given.get("limit_train_batches")
        if limit is not None:
            batches = _part(limit, batches)
            given["max_epochs"] = 1  # the one long epoch of a training ends early
        for_checks = {name: given.pop(name, None) for name in ("val_check_interval", "check_val_every_n_epoch")}
        if self.watched is None:
            given["limit_val_batches"] = 0
        else:
            epoch = math.ceil(images / batch_size)
            # Null: the interval counts batches across Lightning's epochs.
            given |= {"val_check_interval": self._check_every(batches, epoch, **for_checks)}
            given |= {"check_val_every_n_epoch": None}
        if profiler := given.pop("profiler", None):
            given["profiler"] = PROFILERS[profiler](dirpath=self.folder, filename=f"profile-{_file_name(title)}")
        given["enable_checkpointing"] = CHECKPOINT in self.callbacks
        return given

    def _check_every(
        self, batches: int, epoch: int, val_check_interval: Any, check_val_every_n_epoch: int | None
    ) -> int | str:
        """The number of batches between two checks, or a time."""
        if isinstance(val_check_interval, str):
            return val_check_interval
        if isinstance(val_check_interval, float):
            return max(1, int(batches * val_check_interval))
        every = check_val_every_n_epoch and check_val_every_n_epoch * epoch
        name, every = ("check_val_every_n_epoch", every) if every else ("val_check_interval", val_check_interval)
        if every is None:
            return evenly(batches)
        if every > batches and not self.arguments.get("fast_dev_run"):
            raise UserError(
                f"trainer.{name}={self.arguments[name]} is not allowed: the training has {batches:,} batches, and an "
                f"epoch of the training images has {epoch:,}, so nothing would be checked"
            )
        return every

    def build_callbacks(
        self, steps: int, images: int, batch_size: int, title: str, logger: Logger | bool
    ) -> list[Callback]:
        """Lightning's callbacks, and the one that keeps the best weights (if `train.selection` asks for it).

        Raises `UserError` if Lightning refuses their keys.
        """
        found: list[Callback] = []
        try:
            if self.selection != LAST:
                found.append(BestWeights(VAL_ACCURACY))
            if keys := self.callbacks.get(EARLY_STOPPING):
                found.append(EarlyStopping(**_directed(keys)))
            if (keys := self.callbacks.get(LR_MONITOR)) and logger:
                found.append(LearningRateMonitor(**keys))
            if keys := self.callbacks.get(CHECKPOINT):
                per_epoch = math.ceil(images / (batch_size * self.accumulated))
                found.append(self._checkpoints(dict(keys), steps, per_epoch, title))
        except MisconfigurationException as error:
            raise UserError(f"callbacks: {first_line(error)}") from None
        return found

    def _checkpoints(self, keys: dict[str, Any], steps: int, per_epoch: int, title: str) -> Checkpoints:
        folder = Path(keys.pop("dirpath") or self.folder / "checkpoints")
        folder = folder if title == "train" else folder / _file_name(title)  # a study trains many classifiers
        if epochs := keys.pop("every_n_epochs"):
            keys["every_n_train_steps"] = epochs * per_epoch
        if keys["train_time_interval"] is not None:
            days, hours, minutes, seconds = map(int, keys["train_time_interval"].split(":"))
            keys["train_time_interval"] = timedelta(days, hours=hours, minutes=minutes, seconds=seconds)
        elif keys["monitor"] is None and not keys["every_n_train_steps"]:
            keys["every_n_train_steps"] = evenly(steps)
        return Checkpoints(dirpath=folder, **_directed(keys))


def evenly(count: int) -> int:
    """An interval that divides `count` into about `CHECKS` parts, and exactly if there is such an interval.

    >>> [evenly(count) for count in (200, 5, 37, 47, 1000)]
    [10, 1, 1, 3, 50]
    """
    widest = math.ceil(count / CHECKS)
    exact = (every for every in range(widest, math.ceil(count / (2 * CHECKS)) - 1, -1) if count % every == 0)
    return next(exact, widest)


def _part(given: int | float, batches: int) -> int:
    """The number of batches that Lightning means by a number or a share of them."""
    return min(given, batches) if isinstance(given, int) else int(batches * given)


def _file_name(title: str) -> str:
    return re.sub(r"[^\w+-]+", "-", title)


def _directed(keys: Mapping[str, Any]) -> dict[str, Any]:
    """The keys with a `mode`: accuracy improves upwards, and losses downwards."""
    best = "max" if keys["monitor"] == VAL_ACCURACY else "min"
    return dict(keys) | {"mode": keys["mode"] or best}
