"""Clusters the images of one class into groups, and chooses the number of groups."""

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from scipy.cluster import hierarchy
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial.distance import pdist, squareform
from sklearn.cluster import AgglomerativeClustering
from sklearn.metrics import silhouette_score
from torch.nn import functional as F

AUTO = "auto"
RESOLUTION = 1e-6  # float32 unit features that are closer than this count as features of the same image


def group(
    features: torch.Tensor,
    num_groups: int | Literal["auto"],
    max_groups: int,
    linkage: str,
    max_clustered: int,
    seed: int | Sequence[int],
) -> np.ndarray:
    """Groups the images of one class by agglomerative clustering (Zhu et al., 2024, section 3.2).

    features: (n, D), of unit length. Returns group indices (n,), int64, from 0 to K - 1, and no group is empty. K is
    the smaller of `num_groups` and n. If `num_groups` is `"auto"`, `choose_groups` chooses K, up to `max_groups`, by
    the mean silhouette.

    Clustering is quadratic in n, so at most `max_clustered` images are clustered. If the class has more images,
    `max_clustered` of the images are drawn without replacement by a generator seeded with `seed`. The drawn images
    determine K and the groups, and every other image joins the group whose mean direction is nearest by cosine. If
    `num_groups` is 1, nothing is drawn or clustered.
    """
    if num_groups == 1:
        return np.zeros(len(features), dtype=np.int64)
    if len(features) <= max_clustered:
        return _cluster(features, num_groups, max_groups, linkage)
    drawn = np.sort(np.random.default_rng(seed).choice(len(features), max_clustered, replace=False))
    sample = features[torch.from_numpy(drawn)]
    of_sample = _cluster(sample, num_groups, max_groups, linkage)
    nearest = (features @ mean_directions(sample, of_sample).T).argmax(1).cpu().numpy()
    nearest[drawn] = of_sample
    return nearest


def choose_groups(features: np.ndarray, max_groups: int, linkage: str) -> np.ndarray:
    """Groups (n,) of features (n, D), where the number of groups K has the largest mean silhouette.

    The silhouette is that of Rousseeuw, 1987. Every K from 2 to `max_groups` is tried.
    K is less than n and at most the number of distinct images. There is a single group if fewer than three images are
    distinct, or if no K has a positive silhouette. A positive silhouette does not show that the groups are significant:
    even a round cloud without structure has a slightly positive silhouette, and is therefore split.
    """
    whole = np.zeros(len(features), dtype=np.int64)
    if len(features) < 3:
        return whole
    distances = pdist(features)
    tree = hierarchy.linkage(distances, linkage)
    distinct = 1 + np.count_nonzero(tree[:, 2] > RESOLUTION)
    if distinct < 3:
        return whole
    distances = squareform(distances)
    best, best_score = whole, RESOLUTION
    for num_groups in range(2, min(max_groups, distinct, len(features) - 1) + 1):
        groups = cut(tree, num_groups)
        score = silhouette_score(distances, groups, metric="precomputed")
        if score > best_score:
            best, best_score = groups, score
    return best


def cut(tree: np.ndarray, num_groups: int) -> np.ndarray:
    """The groups (n,) before the last K - 1 merges of a SciPy merge tree (n - 1, 4), where K is `num_groups`.

    There are always K groups. SciPy's `fcluster` cuts the tree at a height, so it returns fewer groups if merges have
    equal heights, as they do with duplicates.
    """
    num_leaves = len(tree) + 1
    num_merges = num_leaves - num_groups
    children = tree[:num_merges, :2].astype(np.int64).ravel()
    parents = np.repeat(np.arange(num_leaves, num_leaves + num_merges), 2)
    num_nodes = num_leaves + num_merges
    edges = coo_array((np.ones(len(parents), dtype=bool), (parents, children)), shape=(num_nodes, num_nodes))
    return connected_components(edges, directed=False)[1][:num_leaves].astype(np.int64)


def mean_directions(features: torch.Tensor, groups: np.ndarray) -> torch.Tensor:
    """The normalised mean (K, D) of each group's features, from features (n, D) and group indices (n,)."""
    return torch.stack([mean_direction(features[torch.from_numpy(groups == k)]) for k in range(groups.max() + 1)])


def mean_direction(features: torch.Tensor) -> torch.Tensor:
    """The normalised mean (D,) of features (n, D)."""
    return F.normalize(features.mean(0), dim=0)


def _cluster(features: torch.Tensor, num_groups: int | str, max_groups: int, linkage: str) -> np.ndarray:
    features = features.double().cpu().numpy()
    if num_groups == AUTO:
        return choose_groups(features, max_groups, linkage)
    if len(features) == 1:
        return np.zeros(1, dtype=np.int64)
    return AgglomerativeClustering(min(num_groups, len(features)), linkage=linkage).fit_predict(features)
