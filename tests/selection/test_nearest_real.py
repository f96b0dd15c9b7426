"""`selection=nearest_real`: what is nearest to a real image of its class is kept."""

import numpy as np
from shown import shown
from sklearn.neighbors import NearestNeighbors
from sklearn.preprocessing import normalize

from distdiff.selection.nearest_real import NearestReal


def test_the_images_nearest_to_a_real_image_of_their_class_are_kept() -> None:
    """Oracle: scikit-learn's nearest neighbour. The real images of another class, which are nearer, do not count."""
    rng = np.random.default_rng(0)
    features, real = normalize(rng.normal(size=(15, 4))), normalize(rng.normal(size=(3, 4)))
    everything = np.concatenate([real, features + 1e-3])
    candidates = shown(features, everything, np.repeat([0, 1], [3, 15]))
    distance = NearestNeighbors(n_neighbors=1).fit(real).kneighbors(features)[0][:, 0]
    kept = NearestReal(ratio=2).choose(candidates, 6, last=True)
    assert kept.tolist() == np.argsort(distance).tolist()[:6]


def test_of_equally_near_images_the_first_are_kept() -> None:
    same = np.tile([[0.6, 0.8]], (5, 1))
    assert NearestReal(ratio=2).choose(shown(same, np.array([[1.0, 0.0]])), 3, last=True).tolist() == [0, 1, 2]
