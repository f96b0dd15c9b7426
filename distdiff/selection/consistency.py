"""Selection by the guide's agreement."""

import numpy as np

from distdiff.selection.base import Candidates, Selection


class Consistency(Selection):
    """Keeps images to which the guide gives their label, the first ones of the plan; asks for more where these are too few.

    Where there are too few at last, the most probable of the others are kept as well, so that counts stay equal.
    """

    def choose(self, candidates: Candidates, wanted: int, last: bool) -> np.ndarray:
        predicted = candidates.probabilities.argmax(-1).numpy()
        agreeing = np.flatnonzero(predicted == candidates.label)
        if len(agreeing) >= wanted or not last:
            return agreeing[:wanted]
        others = np.setdiff1d(np.arange(len(candidates)), agreeing)
        order = np.argsort(-candidates.probabilities[others, candidates.label].numpy(), kind="stable")
        return np.concatenate([agreeing, others[order]])[:wanted]
