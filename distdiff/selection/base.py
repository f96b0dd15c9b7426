"""The base class of selections. A selection chooses which of a class's candidate images are kept.

To add a selection, write a subclass of `Selection` in a file here, and a YAML file in `conf/selection` that names the
class.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch

from distdiff.errors import UserError
from distdiff.keys import Limits
from distdiff.prototypes.exemplars import Exemplars

Ratio = Annotated[float, Limits(at_least=1, at_most=1000)]


@dataclass(frozen=True)
class Candidates:
    """The n candidate images of a class, in the order of the plan, as read back from their saved files.

    - `label`: the class; for images with a soft label, the heaviest class.
    - `rows`: the metadata row of each image.
    - `features`: the features (n, D) of the candidates under φ, unit vectors.
    - `real`: the features (m, D) of the class's real images.
    - `energies` (n,): each candidate's energy, as the `energy` keys define it.
    - `probabilities` (n, classes): the class probabilities that the guide predicts. If the encoder is not the guide, a
      softmax of the cosines to the class means takes their place.
    - `all_real`: the features and labels of the real images of all classes.
    - `prompts`: the prompts of every class, as texts.
    - `look(places)`: the candidates at these indices as images (b, 3, H, W) in [0, 1], on the device.
    """

    label: int
    rows: Sequence[Mapping[str, Any]]
    features: torch.Tensor
    real: torch.Tensor
    energies: torch.Tensor
    probabilities: torch.Tensor
    all_real: Exemplars
    prompts: Sequence[Sequence[str]]
    look: Callable[[Sequence[int]], torch.Tensor]

    def __len__(self) -> int:
        return len(self.rows)


class Selection(ABC):
    """Chooses among candidates, class by class.

    The constructor's keyword-only arguments are the keys of the selection's file in `conf/selection`. `ratio`: how many
    candidates are made for each image that is kept. `max_ratio`: the largest number of candidates for each kept image,
    reached only if the selection asks for more candidates; None means `ratio`. `keep_candidates`: whether images that
    are not kept stay below `.candidates/`, so that a later run with a larger `expansion.factor` need not make them
    again.
    """

    selects = True  # False only for the selection that keeps everything

    def __init__(self, *, ratio: Ratio, max_ratio: Ratio | None = None, keep_candidates: bool = True) -> None:
        """Raises `UserError` if `max_ratio` is below `ratio`."""
        if max_ratio is not None and max_ratio < ratio:
            raise UserError(
                f"selection.max_ratio={max_ratio:g} is not allowed: at least selection.ratio={ratio:g}, or null"
            )
        self.ratio = ratio
        self.max_ratio = ratio if max_ratio is None else max_ratio
        self.keep_candidates = keep_candidates

    def identity(self, prompts: Sequence[Sequence[str]]) -> dict[str, Any]:
        """What else than the selection's keys and φ decides which images are kept, such as the content of a model's files.

        `prompts` has the prompts of every class. By default, it is nothing.
        """
        return {}

    def fetch(self) -> dict[str, Path]:
        """Downloads what the selection needs from the hub; returns {`key=value`: cache folder}, by default empty."""
        return {}

    def check(self, labels: np.ndarray) -> None:  # noqa: B027 (nothing to refuse is the default)
        """Raises `UserError` if these real images, with the classes `labels` (n,), are not enough to choose by.

        It is called before any image is made. By default, any images are enough.
        """

    @abstractmethod
    def choose(self, candidates: Candidates, wanted: int, last: bool) -> np.ndarray:
        """The indices of the candidates to keep, at most `wanted`. If fewer are returned, more candidates are made.

        `last` is true in the last call, after which no more candidates are made in any case. The choice must depend on
        the arguments alone, so that every process chooses the same images.
        """

    def factors(self, factor: int) -> list[int]:
        """The number of candidates per source after each round, when `factor` images of each source are to be kept.

        After the first round, there are `ratio` candidates for each image to keep. Each further round, if needed,
        doubles the number of candidates, up to `max_ratio` for each image to keep.
        """
        ratios = [self.ratio]
        while ratios[-1] < self.max_ratio:
            ratios.append(min(2 * ratios[-1], self.max_ratio))
        return list(dict.fromkeys(math.ceil(factor * ratio) for ratio in ratios))
