"""Selection by energy."""

import numpy as np

from distdiff.selection.base import Candidates, Selection


class LowestEnergy(Selection):
    """Keeps the images with the lowest energy in each class; ties go to the image that comes first in the plan."""

    def choose(self, candidates: Candidates, wanted: int, last: bool) -> np.ndarray:
        return np.argsort(candidates.energies.numpy(), kind="stable")[:wanted]
