"""Selection by the guide's agreement with the label."""

import numpy as np

from distdiff.selection.base import Candidates, Selection


class Consistency(Selection):
    """Keeps the first images, in the plan's order, whose label the guide predicts. If these are too few, asks for more.

    If there are still too few such images in the last round, the other images with the highest probability of
    their label fill the gap, so that every class has as many images as planned.
    """

    def choose(self, candidates: Candidates, wanted: int, last: bool) -> np.ndarray:
        predicted = candidates.probabilities.argmax(-1).numpy()
        agreeing = np.flatnonzero(predicted == candidates.label)
        if len(agreeing) >= wanted or not last:
            return agreeing[:wanted]
        others = np.setdiff1d(np.arange(len(candidates)), agreeing)
        order = np.argsort(-candidates.probabilities[others, candidates.label].numpy(), kind="stable")
        return np.concatenate([agreeing, others[order]])[:wanted]
