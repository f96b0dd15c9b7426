"""Keeps the best weights of a training."""

from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from torch import nn


class BestWeights(Callback):
    """Keeps a copy of the classifier's weights with the highest value of the metric `monitor`, the first of equal ones."""

    def __init__(self, monitor: str) -> None:
        self.monitor = monitor
        self.value: float | None = None
        self.step = 0  # after which the weights are the best
        self.weights: dict[str, torch.Tensor] | None = None

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.sanity_checking:
            return
        value = trainer.callback_metrics[self.monitor].item()
        if self.value is None or value > self.value:
            self.value, self.step = value, trainer.global_step
            own = pl_module.classifier.state_dict()
            self.weights = {name: tensor.detach().cpu().clone() for name, tensor in own.items()}

    def give_to(self, classifier: nn.Module) -> None:
        """Gives the classifier its best weights; it keeps its last ones if the training ended before the first check."""
        if self.weights is not None:
            classifier.load_state_dict(self.weights)

    def state_dict(self) -> dict[str, Any]:
        return {"value": self.value, "step": self.step, "weights": self.weights}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.value, self.step, self.weights = state["value"], state["step"], state["weights"]
