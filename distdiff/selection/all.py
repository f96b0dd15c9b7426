"""No selection: every image is kept."""

import numpy as np

from distdiff.selection.base import Candidates, Selection


class All(Selection):
    """Keeps every image; no additional candidates are made."""

    selects = False

    def __init__(self) -> None:
        super().__init__(ratio=1)

    def choose(self, candidates: Candidates, wanted: int, last: bool) -> np.ndarray:
        return np.arange(min(wanted, len(candidates)))
