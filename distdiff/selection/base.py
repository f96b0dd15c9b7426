"""What a selection is: which of a class's images are kept, of more than are wanted.

To add one: a file here with a subclass of `Selection`, and a YAML file in `conf/selection` that names it.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import torch

from distdiff.errors import UserError
from distdiff.keys import Limits

Ratio = Annotated[float, Limits(at_least=1)]


@dataclass(frozen=True)
class Candidates:
    """A class's n images, in the order of the plan, as φ sees their files.

    - `label`: the class; of images with a soft label the heaviest.
    - `rows`: their metadata (n of them).
    - `features`: φ (n, D), unit vectors; `real`: of the class's real images (m, D).
    - `energies` (n,): of the `energy` keys.
    - `probabilities` (n, classes): the guide's; of an encoder without a classifier, a softmax of the cosines to class means.
    """

    label: int
    rows: Sequence[Mapping[str, Any]]
    features: torch.Tensor
    real: torch.Tensor
    energies: torch.Tensor
    probabilities: torch.Tensor

    def __len__(self) -> int:
        return len(self.rows)


class Selection(ABC):
    """Chooses among candidates, class by class. Its keys in `conf/selection` are the constructor's keyword-only arguments.

    `ratio`: candidates for each image that is kept. `max_ratio`: at most so many, where a selection asks for more; None:
    `ratio`. `keep_candidates`: images that are not kept stay below `.candidates/`, so that a larger factor need not make them
    again.
    """

    selects = True  # are there candidates at all?

    def __init__(self, *, ratio: Ratio, max_ratio: Ratio | None = None, keep_candidates: bool = True) -> None:
        """Raises `UserError` for a `max_ratio` below `ratio`."""
        if max_ratio is not None and max_ratio < ratio:
            raise UserError(
                f"selection.max_ratio={max_ratio:g} is not allowed: at least selection.ratio={ratio:g}, or null"
            )
        self.ratio = ratio
        self.max_ratio = ratio if max_ratio is None else max_ratio
        self.keep_candidates = keep_candidates

    @abstractmethod
    def choose(self, candidates: Candidates, wanted: int, last: bool) -> np.ndarray:
        """The places, among a class's candidates, of those that are kept, at most `wanted`; fewer: more are to be made.

        `last`: no more will be made. It depends on the candidates alone, so that any process chooses the same.
        """

    def factors(self, factor: int) -> list[int]:
        """The factors with which candidates are made one after the other, as long as there are too few, for `factor` kept.

        With `ratio`, then twice as many, and so on up to `max_ratio`.
        """
        ratios = [self.ratio]
        while ratios[-1] < self.max_ratio:
            ratios.append(min(2 * ratios[-1], self.max_ratio))
        return list(dict.fromkeys(math.ceil(factor * ratio) for ratio in ratios))
