"""The seeds of a study: data seeds, which draw the training images, and the training seeds under each of them."""

import numpy as np


def training_seed(data_seed: int, number: int) -> int:
    """The seed with which a row's classifier with this `number` is trained under a data seed.

    Number 0 has the data seed itself. The others have seeds that no other data seed's classifiers are likely to have.

    >>> training_seed(3, 0), training_seed(3, 1) == training_seed(4, 1)
    (3, False)
    """
    return data_seed if number == 0 else int(np.random.SeedSequence((data_seed, number)).generate_state(1)[0])
