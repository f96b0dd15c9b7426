"""Optimizers with a learning rate for every step, from torch, in the form that Lightning's `configure_optimizers` returns.

`steps` is the number of optimizer steps of the whole training. `warmup` is the share of them in which the rate rises.
"""

from collections.abc import Iterable
from typing import Annotated, Any, Literal

from torch import nn
from torch.optim import SGD, AdamW, Optimizer
from torch.optim.lr_scheduler import (
    ConstantLR,
    CosineAnnealingLR,
    LinearLR,
    LRScheduler,
    OneCycleLR,
    SequentialLR,
)

from distdiff.keys import Limits, Share

# A larger rate or decay overflows float32 in AdamW; tests/config/test_library_bounds.py asks it.
LearningRate = Annotated[float, Limits(above=0, at_most=1e30)]
WeightDecay = Annotated[float, Limits(at_least=0, at_most=1e30)]
Schedule = Literal["one_cycle", "cosine", "linear", "constant"]


def adamw(
    parameters: Iterable[nn.Parameter],
    steps: int,
    *,
    learning_rate: LearningRate,
    weight_decay: WeightDecay,
    schedule: Schedule,
    warmup: Share,
) -> dict[str, Any]:
    """AdamW (Loshchilov & Hutter, 2019). With `one_cycle`, β₁ falls from 0.95 to 0.85 while the rate rises, and back."""
    optimizer = AdamW(parameters, lr=learning_rate, weight_decay=weight_decay)
    return scheduled(optimizer, steps, schedule, warmup, cycle_momentum=True)


def sgd(
    parameters: Iterable[nn.Parameter],
    steps: int,
    *,
    learning_rate: LearningRate,
    weight_decay: WeightDecay,
    momentum: Share,
    nesterov: bool,
    schedule: Schedule,
    warmup: Share,
) -> dict[str, Any]:
    """Stochastic gradient descent with momentum, which no schedule changes."""
    optimizer = SGD(parameters, lr=learning_rate, weight_decay=weight_decay, momentum=momentum, nesterov=nesterov)
    return scheduled(optimizer, steps, schedule, warmup, cycle_momentum=False)


def scheduled(
    optimizer: Optimizer, steps: int, schedule: Schedule, warmup: float, cycle_momentum: bool
) -> dict[str, Any]:
    """`optimizer` with the learning rate of a schedule; its own rate is the highest one. See conf/train/README.md."""
    if schedule == "one_cycle":
        rates = _one_cycle(optimizer, steps, warmup, cycle_momentum)
    else:
        rates = _warmed_up(optimizer, steps, schedule, warmup)
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": rates, "interval": "step"}}


def _one_cycle(optimizer: Optimizer, steps: int, warmup: float, cycle_momentum: bool) -> LRScheduler:
    """The schedule of Smith & Topin, 2019."""
    total = steps + 1
    # OneCycleLR divides by total · share - 1. A shorter warm-up ends before the first step, as with fewer steps.
    share = warmup if total * warmup != 1 else warmup / 2
    highest = optimizer.defaults["lr"]
    return OneCycleLR(optimizer, highest, total_steps=total, pct_start=share, cycle_momentum=cycle_momentum)


def _warmed_up(optimizer: Optimizer, steps: int, schedule: Schedule, warmup: float) -> LRScheduler:
    """A rate that rises in equal steps in the first round(steps · warmup) steps, and then follows `schedule`.

    The first step that follows the schedule has the highest rate. No step has a rate of zero.
    """
    rising = round(steps * warmup)
    left = max(steps - rising, 1)
    match schedule:
        case "cosine":
            following: LRScheduler = CosineAnnealingLR(optimizer, left)
        case "linear":
            following = LinearLR(optimizer, start_factor=1.0, end_factor=0.0, total_iters=left)
        case _:
            following = ConstantLR(optimizer, factor=1.0, total_iters=left)
    if not rising:
        return following
    rise = LinearLR(optimizer, start_factor=1 / (rising + 1), end_factor=1.0, total_iters=rising)
    return SequentialLR(optimizer, [rise, following], milestones=[rising])
