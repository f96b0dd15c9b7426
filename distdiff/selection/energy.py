"""Selection by energy."""

import numpy as np

from distdiff.selection.base import Candidates, Selection


class LowestEnergy(Selection):
    """Keeps the images with the lowest energy in each class. The plan's order decides between equal energies."""

    def choose(self, candidates: Candidates, wanted: int, last: bool) -> np.ndarray:
        return np.argsort(candidates.energies.numpy(), kind="stable")[:wanted]
