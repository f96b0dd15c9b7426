"""The label consistency metric."""

import numpy as np

from distdiff.metrics.base import Features, ShareMetric


class LabelConsistency(ShareMetric):
    r"""The share of generated images for which the judge predicts the label of the class they were made for.

    .. math:: \frac{1}{n} \sum_{i=1}^{n} [\hat y(x_i) = y_i]

    The value is in [0, 1], and higher is better. If there are no images, the value is NaN and no error is raised. The
    value says nothing about diversity: it is 1 if all images of a class are copies of one well-recognised image. The
    real images are not used.
    Source: "GAN-test" of Shmelkov et al., "How good is my GAN?", ECCV 2018.

    >>> import torch
    >>> generated = Features(torch.zeros(4, 3), torch.tensor([0, 0, 1, 1]), predicted=torch.tensor([0, 1, 1, 1]))
    >>> LabelConsistency()(generated, generated)
    0.75
    """

    higher_is_better = True
    needs_labels = True
    least_real = 0

    def of_images(self, real: Features, generated: Features) -> np.ndarray:
        return (generated.predicted == generated.labels).numpy()
