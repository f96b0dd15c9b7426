"""Selection by the distance to the nearest real image."""

import numpy as np

from distdiff.selection.base import Candidates, Selection


class NearestReal(Selection):
    """Keeps the images that are nearest, in φ, to a real training image of their class.

    The plan's order decides between equal distances.
    """

    def choose(self, candidates: Candidates, wanted: int, last: bool) -> np.ndarray:
        cosines = (
            candidates.features.double() @ candidates.real.double().T
        )  # of unit vectors: the largest is the nearest
        return np.argsort(-cosines.amax(1).numpy(), kind="stable")[:wanted]
