"""Resumes a training from a checkpoint of Lightning, with the weights that an uninterrupted training has."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from torch import distributed, nn

from distdiff.caching.fingerprint import plain
from distdiff.errors import UserError, first_line
from distdiff.ranks.world import world
from distdiff.weight_files import damage
from distdiff.wording import some

OURS = "distdiff"  # the key of a checkpoint that holds what Lightning does not keep
NAMED = 3  # a message names at most this many values that differ
HOW = "give a checkpoint that train.py wrote with callbacks=checkpoint"


class Checkpoints(ModelCheckpoint):
    """Lightning's `ModelCheckpoint`, which saves at moments from which a training goes on exactly as it would have.

    A checkpoint of a step after which validation is due is saved after the validation, which Lightning would leave out in
    the resumed training. None is saved between the batches of a step, because gradients are not saved.
    """

    _waiting: tuple[Any, ...] | None = None  # the arguments of a call that waits for the validation

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *batch: Any) -> None:
        loop = trainer.fit_loop.epoch_loop
        if self._train_time_interval and loop.batch_progress.current.ready % trainer.accumulate_grad_batches:
            return
        every = trainer.val_check_batch if trainer.enable_validation else None
        if every and sum(trainer.num_val_batches) and (loop.total_batch_idx + 1) % every == 0:
            self._waiting = batch
            return
        super().on_train_batch_end(trainer, pl_module, *batch)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self._waiting is not None:
            batch, self._waiting = self._waiting, None
            super().on_train_batch_end(trainer, pl_module, *batch)
        super().on_validation_end(trainer, pl_module)


class ResumableTraining(Callback):
    """Adds to each checkpoint what identifies the training, `ingredients`, and the random state of each rank."""

    def __init__(self, ingredients: Mapping[str, Any]) -> None:
        self.ingredients = json.dumps(plain(ingredients), sort_keys=True)
        self._states: list[torch.Tensor] | None = None

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        checkpoint[OURS] = {"ingredients": self.ingredients, "random": _of_all_ranks(_random_states(pl_module.device))}

    def on_load_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        self._states = checkpoint[OURS]["random"][world().rank]

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: object) -> None:
        if self._states is not None:
            torch.set_rng_state(self._states[0])
            if pl_module.device.type == "cuda" and len(self._states) > 1:
                torch.cuda.set_rng_state(self._states[1], pl_module.device)
            self._states = None


def _random_states(device: torch.device) -> list[torch.Tensor]:
    cuda = [torch.cuda.get_rng_state(device)] if device.type == "cuda" else []
    return [torch.get_rng_state(), *cuda]


def _of_all_ranks(states: list[torch.Tensor]) -> list[list[torch.Tensor]]:
    """The random states of each rank, on every rank."""
    if world().size == 1:
        return [states]
    gathered = [[torch.empty_like(state) for _ in range(world().size)] for state in states]
    for own, of_all in zip(states, gathered, strict=True):
        distributed.all_gather(of_all, own)
    return [list(of_rank) for of_rank in zip(*gathered, strict=True)]


def check_checkpoint(path: str, ingredients: Mapping[str, Any], untrained: nn.Module) -> None:
    """Raises `UserError` if the checkpoint at `path` is not one of the training that `ingredients` identify.

    `untrained` is the network that would be trained. No code from the file is run.
    """
    label = f"train.ckpt_path={path} is not allowed"
    found = _read(Path(path), label)
    weights = {
        name.removeprefix("classifier."): tensor
        for name, tensor in found["state_dict"].items()
        if name.startswith("classifier.")
    }
    wanted = untrained.state_dict()
    shapes = [{name: tuple(tensor.shape) for name, tensor in each.items()} for each in (weights, wanted)]
    if shapes[0] != shapes[1]:
        odd = sorted(name for name in {*shapes[0], *shapes[1]} if shapes[0].get(name) != shapes[1].get(name))
        raise UserError(f"{label}: it is of another architecture than the classifier keys give ({some(odd)} differ)")
    before = dict(_flat(json.loads(found[OURS]["ingredients"])))
    now = dict(_flat(plain(json.loads(json.dumps(plain(ingredients))))))
    differing = [name for name in sorted({*before, *now}) if before.get(name) != now.get(name)]
    if differing:
        listed = [f"{name} {_word(before.get(name))}, now {_word(now.get(name))}" for name in differing[:NAMED]]
        more = f"; and {len(differing) - NAMED} more" if len(differing) > NAMED else ""
        raise UserError(f"{label}: it is of another training: {'; '.join(listed)}{more}")


def _read(path: Path, label: str) -> dict[str, Any]:
    if not path.is_file():
        raise UserError(f"{label}: there is no such file; {HOW}")
    if reason := damage(path):
        raise UserError(f"{label}: {reason}; {HOW}")
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever the file holds
        raise UserError(f"{label}: it cannot be read as a checkpoint ({first_line(error)}); {HOW}") from None
    if not isinstance(found, dict) or not isinstance(found.get("state_dict"), dict):
        raise UserError(f"{label}: it is no checkpoint of Lightning; {HOW}")
    if OURS not in found or "optimizer_states" not in found:
        why = (
            "it holds weights alone (callbacks.checkpoint.save_weights_only)" if "loops" in found else "it is not ours"
        )
        raise UserError(f"{label}: {why}; {HOW}")
    return found


def _flat(values: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    if not isinstance(values, dict):
        yield prefix, values
        return
    for name, value in values.items():
        yield from _flat(value, f"{prefix}.{name}" if prefix else str(name))


def _word(value: Any) -> str:
    text = "none" if value is None else str(value)
    return text if len(text) <= 40 else f"{text[:37]}..."
