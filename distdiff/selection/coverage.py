"""Selection by coverage: kept images are spread over the candidates, away from the real images and from each other."""

from typing import Any, Literal

import numpy as np

from distdiff.selection.base import Candidates, Selection


class Coverage(Selection):
    """Adds one image at a time, by distances in φ; the real images of the class count as kept from the start.

    - `objective=k_center`: the candidate that is farthest from all that is kept (Gonzalez, 1985; Sener & Savarese, 2018).
    - `objective=facility_location`: the candidate that lowers most the sum, over all candidates, of the distance to the
      nearest kept image (greedy k-median; a facility location function, Wei et al., 2015).

    Of equally good candidates, the first in the plan's order is kept.
    """

    def __init__(self, *, objective: Literal["k_center", "facility_location"], **keys: Any) -> None:
        super().__init__(**keys)
        self.objective = objective

    def choose(self, candidates: Candidates, wanted: int, last: bool) -> np.ndarray:
        features, real = candidates.features.double().numpy(), candidates.real.double().numpy()
        pick = {"k_center": farthest, "facility_location": most_central}[self.objective]
        return pick(features, distances(features, real).min(1), wanted)


def distances(features: np.ndarray, others: np.ndarray) -> np.ndarray:
    """The Euclidean distances (n, m) of features (n, D) to others (m, D)."""
    squared = (features**2).sum(1)[:, None] + (others**2).sum(1) - 2 * features @ others.T
    return np.sqrt(squared.clip(min=0))


def farthest(features: np.ndarray, away: np.ndarray, wanted: int) -> np.ndarray:
    """The indices of `wanted` features (n, D), each the farthest from those before and from what is `away` (n,) from it."""
    chosen: list[int] = []
    away = away.copy()
    for _ in range(min(wanted, len(features))):
        best = int(away.argmax())
        chosen.append(best)
        away = np.minimum(away, distances(features, features[best : best + 1])[:, 0])
        away[chosen] = -1  # an equal image is still chosen before one that is kept already
    return np.array(chosen, dtype=np.int64)


def most_central(features: np.ndarray, away: np.ndarray, wanted: int) -> np.ndarray:
    """The indices of `wanted` features (n, D), each the one that lowers the sum of `away` (n,) most.

    `away` is the distance of each feature to the nearest that is kept.
    """
    between, chosen = distances(features, features), []
    away = away.copy()
    for _ in range(min(wanted, len(features))):
        gains = (away - between).clip(min=0).sum(1)
        gains[chosen] = -1
        best = int(gains.argmax())
        chosen.append(best)
        away = np.minimum(away, between[best])
    return np.array(chosen, dtype=np.int64)
