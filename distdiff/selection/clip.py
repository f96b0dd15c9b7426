"""Selection by CLIP: images that show, for a model of images and texts, what the prompt of their class says."""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from distdiff.encoders.zero_shot import ZeroShot, ZeroShotClassifier
from distdiff.keys import Share
from distdiff.selection.base import Candidates, Selection

BATCH = 64  # fixed, so that rounding and therefore the selection are the same in every process


class ClipConfidence(Selection):
    """The CLIP filter of He et al. (2023), by the zero-shot probability of an image's class among all classes.

    - `rule=threshold`: keeps the first images, in the plan's order, whose probability is above `threshold`; None means 1
      divided by the number of classes. If these are too few, asks for more candidates; in the last round, the images
      with the highest probabilities are kept.
    - `rule=top`: keeps the images with the highest probabilities.
    """

    def __init__(
        self,
        *,
        model: str,
        revision: str | None,
        rule: Literal["threshold", "top"],
        threshold: Share | None,
        **keys: Any,
    ) -> None:
        super().__init__(**keys)
        self.source = ZeroShot("selection.model", model, revision)
        self.rule = rule
        self.threshold = threshold

    def identity(self, prompts: Sequence[Sequence[str]]) -> dict[str, Any]:
        return {"model": self.source.identity(), "prompts": [list(own) for own in prompts]}

    def fetch(self) -> dict[str, Path]:
        return self.source.fetch()

    def check(self, labels: np.ndarray) -> None:
        """Loads the model, so that one that cannot be loaded is reported before any image is made."""
        self.source.load()

    def choose(self, candidates: Candidates, wanted: int, last: bool) -> np.ndarray:
        confidence = self.confidence(candidates)
        if self.rule == "threshold":
            least = 1 / len(candidates.prompts) if self.threshold is None else self.threshold
            above = np.flatnonzero(confidence > least)
            if len(above) >= wanted or not last:
                return above[:wanted]
        return np.argsort(-confidence, kind="stable")[:wanted]

    def confidence(self, candidates: Candidates) -> np.ndarray:
        """The probability (n,) of their class for each of the candidates."""
        found = []
        for start in range(0, len(candidates), BATCH):
            images = candidates.look(range(start, min(start + BATCH, len(candidates))))
            classifier = self._classifier.to(images.device)
            if self._classes is None:
                self._classes = classifier.of_classes(candidates.prompts)
            probabilities = classifier.probabilities(images, self._classes.to(images.device))
            found.append(probabilities[:, candidates.label].double().cpu())
        return torch.cat(found).numpy()

    _classes: torch.Tensor | None = None  # the embeddings of all classes, once they are known

    @cached_property
    def _classifier(self) -> ZeroShotClassifier:
        return self.source.load()
