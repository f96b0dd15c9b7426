"""Seeds that follow from others."""

import numpy as np


def seed_of(*numbers: int) -> int:
    """A seed that belongs to `numbers`, and that no others are likely to have."""
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])


def training_seed(data_seed: int, number: int) -> int:
    """The seed with which a classifier with this `number` is trained under a data seed, which draws its training images.

    Number 0 has the data seed itself. The others have seeds that no other data seed's classifiers are likely to have.

    >>> training_seed(3, 0), training_seed(3, 1) == training_seed(4, 1)
    (3, False)
    """
    return data_seed if number == 0 else seed_of(data_seed, number)
