"""Optimizers and schedules: closed forms, a plain loop of torch that trains alike, and an optimizer of the user's own."""

import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import compose
from lightning.pytorch.callbacks import Callback
from scripts import run_here
from sklearn.utils.class_weight import compute_class_weight
from torch import nn
from torch.nn import functional as F
from torch.utils.data import RandomSampler

from distdiff.caching.stages import StageCache
from distdiff.classification.networks import small_cnn
from distdiff.classification.optimizers import adamw, sgd
from distdiff.classification.recipe import Recipe
from distdiff.classification.training import ClassifierTrainer, training_set
from distdiff.data.sources import digits
from distdiff.ranks.trainer import build_trainer

ADAMW = {"learning_rate": 0.5, "weight_decay": 0.0}
SGD = ADAMW | {"momentum": 0.9, "nesterov": False}


def rates(make: Callable, steps: int, **keys: object) -> list[float]:
    """The learning rate of every step."""
    made = make([nn.Parameter(torch.zeros(1))], steps, **keys)
    found = []
    for _ in range(steps):
        found.append(made["optimizer"].param_groups[0]["lr"])
        made["optimizer"].step()
        made["lr_scheduler"]["scheduler"].step()
    return found


def decayed(schedule: str, share: float) -> float:
    """The rate after a share of the steps behind the warm-up, as a fraction of the highest."""
    return {"cosine": (1 + math.cos(math.pi * share)) / 2, "linear": 1 - share, "constant": 1.0}[schedule]


@pytest.mark.parametrize("schedule", ["cosine", "linear", "constant"])
@pytest.mark.parametrize("warmup", [0.0, 0.1, 0.33, 1.0])
@pytest.mark.parametrize("steps", [1, 2, 7, 40])
def test_schedules_are_their_closed_forms_behind_a_linear_warm_up(schedule: str, warmup: float, steps: int) -> None:
    rising = round(warmup * steps)
    expected = [0.5 * (step + 1) / (rising + 1) for step in range(rising)]
    expected += [0.5 * decayed(schedule, step / (steps - rising)) for step in range(steps - rising)]
    for make, keys in ((adamw, ADAMW), (sgd, SGD)):
        assert rates(make, steps, **keys, schedule=schedule, warmup=warmup) == pytest.approx(expected, rel=1e-9)
    assert min(expected) > 0


@pytest.mark.parametrize("warmup", [0.1, 0.2, 0.5])
def test_one_cycle_is_two_halves_of_a_cosine(warmup: float) -> None:
    steps, low, high, end = 40, 0.5 / 25, 0.5, 0.5 / 25 / 1e4
    top = warmup * (steps + 1) - 1

    def between(first: float, last: float, share: float) -> float:
        return last + (first - last) * (1 + math.cos(math.pi * share)) / 2

    expected = [
        between(low, high, step / top) if step <= top else between(high, end, (step - top) / (steps - top))
        for step in range(steps)
    ]
    assert rates(adamw, steps, **ADAMW, schedule="one_cycle", warmup=warmup) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("schedule", ["one_cycle", "cosine"])
def test_no_schedule_changes_the_momentum_of_sgd(schedule: str) -> None:
    made = sgd([nn.Parameter(torch.zeros(1))], 10, **SGD, schedule=schedule, warmup=0.2)
    for _ in range(5):
        assert made["optimizer"].param_groups[0]["momentum"] == 0.9
        made["optimizer"].step()
        made["lr_scheduler"]["scheduler"].step()


def test_nesterovs_step_is_torchs() -> None:
    weights = {}
    for nesterov in (False, True):
        parameter = nn.Parameter(torch.ones(1))
        made = sgd([parameter], 3, **SGD | {"nesterov": nesterov}, schedule="constant", warmup=0.0)
        for _ in range(2):
            parameter.grad = torch.ones(1)
            made["optimizer"].step()
        weights[nesterov] = parameter.item()
    assert weights == pytest.approx({False: 1 - 0.5 * (1 + 1.9), True: 1 - 0.5 * (1.9 + (1 + 0.9 * 1.9))})


STEPS, BATCH, SEED = 20, 8, 3
POOL = digits.load(name="digits", split_seed=0).train.select(range(30))  # not equally many of each class


class Losses(Callback):
    def __init__(self) -> None:
        self.found: list[float] = []

    def on_train_batch_end(self, trainer, pl_module, outputs, *_) -> None:
        self.found.append(float(outputs["loss"]))


def trained(tmp_path: Path, *overrides: str) -> tuple[list[float], nn.Module]:
    """The loss of each step, and the network, as the program trains it."""
    usual = [f"train.steps={STEPS}", f"train.batch_size={BATCH}", "augmentation=none"]
    config, losses = compose("train", [*usual, *overrides, "logger=none"]), Losses()
    trainer = build_trainer(
        config.trainer, max_steps=STEPS, logger=False, callbacks=[losses], enable_progress_bar=False
    )
    classifiers = ClassifierTrainer(Recipe.of(config), config.trainer, StageCache(tmp_path))
    return losses.found, classifiers._fit(trainer, training_set(POOL, "squash"), SEED)


def plain_loop(
    optimizer_of: Callable, rate_of: Callable[[int], float] | None, dtype: torch.dtype, **loss_keys: object
) -> tuple[list[float], nn.Module]:
    """The same in torch alone. `rate_of` gives the rate of a step; if it is None, `optimizer_of` gives a schedule too."""
    torch.manual_seed(SEED)
    network = small_cnn(10, input_size=32).to(dtype)
    made = optimizer_of(network.parameters())
    optimizer, schedule = made if rate_of is None else (made, None)
    order = list(RandomSampler(POOL, num_samples=STEPS * BATCH, generator=torch.Generator().manual_seed(SEED)))
    losses = []
    for step in range(STEPS):
        chosen = order[step * BATCH : (step + 1) * BATCH]
        pixels = torch.stack([POOL.tensor(i, 32, "squash") for i in chosen]).to(dtype)
        if rate_of is not None:
            optimizer.param_groups[0]["lr"] = rate_of(step)
        loss = F.cross_entropy(network(pixels), torch.from_numpy(POOL.labels[chosen]), **loss_keys)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if schedule is not None:
            schedule.step()
        losses.append(loss.item())
    return losses, network


@pytest.mark.parametrize(("precision", "dtype"), [("64-true", torch.float64), ("32-true", torch.float32)])
def test_the_default_recipe_trains_as_a_plain_loop_does(precision: str, dtype: torch.dtype, tmp_path: Path) -> None:
    """In float32, the weights are those of the plain loop to the last bit, as those of guides have always been."""

    def optimizer_of(parameters):
        optimizer = torch.optim.AdamW(parameters, lr=2e-3, weight_decay=5e-4)
        return optimizer, torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=STEPS + 1, pct_start=0.2)

    ours, network = trained(tmp_path, f"trainer.precision={precision}")
    losses, plain = plain_loop(optimizer_of, None, dtype)
    assert len(ours) == STEPS
    assert ours == pytest.approx(losses, abs=1e-6)
    for name, weights in plain.state_dict().items():
        torch.testing.assert_close(network.state_dict()[name], weights, atol=0, rtol=0)


def test_sgd_with_warm_up_smoothing_and_class_weights_trains_as_a_plain_loop_does(tmp_path: Path) -> None:
    keys = ["optimizer=sgd", "optimizer.warmup=0.25", "optimizer.nesterov=true", "optimizer.learning_rate=0.05"]
    ours, _ = trained(
        tmp_path, *keys, "trainer.precision=64-true", "train.label_smoothing=0.1", "train.class_weights=balanced"
    )

    def optimizer_of(parameters):
        return torch.optim.SGD(parameters, lr=1.0, momentum=0.9, nesterov=True, weight_decay=1e-4)

    def rate_of(step: int) -> float:
        return 0.05 * ((step + 1) / 6 if step < 5 else decayed("cosine", (step - 5) / 15))

    weights = torch.from_numpy(compute_class_weight("balanced", classes=np.arange(10), y=POOL.labels)).float().double()
    assert weights.std() > 0.1
    plain, _ = plain_loop(optimizer_of, rate_of, torch.float64, weight=weights, label_smoothing=0.1)
    assert ours == pytest.approx(plain, abs=1e-6)
    assert plain[-1] < plain[0] - 0.5  # it has learnt: the losses do not agree because nothing happens


OWN = """
import torch

from distdiff.keys import Positive


def rprop(parameters, steps, *, learning_rate: Positive, largest: Positive):
    return torch.optim.Rprop(parameters, lr=learning_rate, step_sizes=(1e-6, largest))
"""


def test_an_optimizer_of_ones_own_is_a_function_and_a_yaml_file(tmp_path: Path, monkeypatch, capsys) -> None:
    (tmp_path / "own_optimizer.py").write_text(OWN)
    (tmp_path / "conf/optimizer").mkdir(parents=True)
    file = tmp_path / "conf/optimizer/rprop.yaml"
    file.write_text("_target_: own_optimizer.rprop\nlearning_rate: 0.001\nlargest: 0.1\n")
    monkeypatch.chdir(tmp_path)
    typed = ["--config-dir", "conf", "optimizer=rprop", "train.steps=3", "logger=none", "paths.output_dir=outputs"]
    ended = run_here("train", [*typed, "hydra.run.dir=run", "optimizer.largest=0.2"], capsys)
    assert ended.status == 0, ended.err
    assert json.loads((tmp_path / "run/results.json").read_text())["num_train"] == 20
    refused = run_here("train", [*typed, "optimizer.largest=0"], capsys)
    assert refused.err.strip() == "distdiff: optimizer.largest=0.0 is not allowed: a number above 0"
    refused = run_here("train", [*typed, "optimizer.momentum=0.5"], capsys)
    assert "optimizer=rprop does not read optimizer.momentum; it is for optimizer=sgd" in refused.err
