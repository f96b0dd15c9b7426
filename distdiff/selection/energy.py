"""Selection by energy."""

import numpy as np

from distdiff.selection.base import Candidates, Selection


class LowestEnergy(Selection):
    """Keeps the images of the lowest energy in each class; of equal ones the first."""

    def choose(self, candidates: Candidates, wanted: int, last: bool) -> np.ndarray:
        return np.argsort(candidates.energies.numpy(), kind="stable")[:wanted]
