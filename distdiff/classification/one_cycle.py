"""AdamW with a one-cycle learning rate, for any number of steps."""

from collections.abc import Iterable

import torch
from torch import nn


def one_cycle(
    parameters: Iterable[nn.Parameter], steps: int, learning_rate: float, weight_decay: float, warm_up: float
) -> dict[str, object]:
    """AdamW whose learning rate rises to `learning_rate` in the share `warm_up` of the steps, and then falls to zero.

    The schedule is that of Smith & Topin, 2019. The result is what Lightning expects of `configure_optimizers`.
    """
    optimizer = torch.optim.AdamW(parameters, lr=learning_rate, weight_decay=weight_decay)
    total = steps + 1
    # OneCycleLR divides by total · share - 1. A shorter warm-up ends before the first step, as with fewer steps.
    share = warm_up if total * warm_up != 1 else warm_up / 2
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, learning_rate, total_steps=total, pct_start=share)
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}
