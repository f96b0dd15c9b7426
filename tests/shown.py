"""Candidates in a feature space, as selections see them."""

import numpy as np
import torch

from distdiff.prototypes.exemplars import Exemplars
from distdiff.selection.base import Candidates


def shown(features: np.ndarray, real: np.ndarray, labels: np.ndarray | None = None) -> Candidates:
    """Candidates of class 0 with these `features`; `labels` are those of the `real` features, by default all 0."""
    labels = np.zeros(len(real), dtype=np.int64) if labels is None else labels
    keys = tuple(map(str, range(len(real))))
    everything = Exemplars(torch.from_numpy(real), labels, keys)
    own = everything.features[torch.from_numpy(labels == 0)]
    empty = torch.zeros(len(features))
    rows, probabilities = [{}] * len(features), empty[:, None]
    return Candidates(0, rows, torch.from_numpy(features), own, empty, probabilities, everything, [["any"]], list)
