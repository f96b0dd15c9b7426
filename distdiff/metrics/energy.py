"""The energy as a metric."""

import numpy as np
from sklearn.preprocessing import normalize

from distdiff.metrics.base import CountedMetric, Features


class MeanEnergy(CountedMetric):
    r"""The mean distance of generated images from the prototype of their class, in features of unit length.

    .. math:: \frac{1}{M} \sum_{j=1}^{M} \|y_j - p_{c(j)}\|, \quad p_c \propto \sum_{i: c(i) = c} x_i

    The x and the y are the features of real and generated images, and the p are scaled to unit length too. This is the
    class term of the hierarchical energy, which guidance lowers in its own features and with its own prototypes: in the
    judge's features, it shows whether that carries over to a network that does not guide. The value is in [0, 2].
    Neither higher nor lower is better: below the baseline value, images crowd around the prototype. Images of a class
    without real images are left out; NaN if there are no others.
    The medians of the energy in the guide's features are the columns `energy_before` and `energy_after` of a study.
    Source: Zhu et al., "Distribution-Aware Data Expansion with Diffusion Models", NeurIPS 2024, eq. 5.

    >>> import torch
    >>> points, labels = torch.tensor([[3.0, 0.0], [0.0, 1.0]]), torch.tensor([0, 1])
    >>> round(MeanEnergy()(Features(points, labels, labels), Features(points, labels.flip(0), labels)), 6)
    1.414214
    """

    higher_is_better = None
    limits = (0.0, 2.0)

    def lacks(self, real: Features, generated: Features) -> str | None:
        shared = not set(real.classes).isdisjoint(generated.classes)
        return super().lacks(real, generated) or (
            None if shared else "no value, since no class of the new images has real ones"
        )

    def _energies(self, real: Features, generated: Features) -> np.ndarray:
        prototypes = self.of_real(real, _prototypes)
        wanted = np.array([prototypes.get(label, _nowhere(real)) for label in generated.labels.tolist()])
        return np.linalg.norm(normalize(generated.points) - wanted.reshape(len(generated), -1), axis=1)

    def resampled(self, real: Features, generated: Features, counts: np.ndarray) -> np.ndarray:
        energies = self.of_pair(real, generated, self._energies)
        known = np.isfinite(energies)
        sizes = counts[:, known].sum(1).astype(np.float64)
        sizes[sizes == 0] = np.nan
        return counts[:, known] @ energies[known] / sizes


def _prototypes(real: Features) -> dict[int, np.ndarray]:
    return {label: normalize(normalize(real.of_class(label).points).sum(0)[None])[0] for label in real.classes}


def _nowhere(real: Features) -> np.ndarray:
    return np.full(real.points.shape[1], np.nan)
