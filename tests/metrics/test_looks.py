"""What a measurer says of single images: predicted labels and nearest real images."""

import numpy as np
import pytest
import torch
from torch import nn

from distdiff.data.images import LabelledImages
from distdiff.data.sources import digits
from distdiff.metrics.base import Features
from distdiff.metrics.judge import Judge
from distdiff.metrics.looks import looks
from distdiff.metrics.measuring import Measurer


class SeesPixels(nn.Module):
    """A classifier whose features are the pixels, and that predicts the class 7 where the corner is bright."""

    def __init__(self) -> None:
        super().__init__()
        self.head = self.predict

    def features(self, pixels: torch.Tensor) -> torch.Tensor:
        return pixels.flatten(1)

    def predict(self, features: torch.Tensor) -> torch.Tensor:
        return nn.functional.one_hot(torch.where(features[:, 0] > 0.5, 7, 2), 10).float()


@pytest.fixture(scope="module")
def images() -> LabelledImages:
    return digits.load(name="digits", split_seed=0).train.select(range(60))


def test_a_measurer_finds_the_nearest_real_image_of_each_image(images: LabelledImages) -> None:
    """Oracle: all distances between the pixels, one by one."""
    measurer = Measurer({}, Judge(SeesPixels(), 8, "squash"), images.select(range(40)))
    found = measurer.look(images.select([50, 3, 59, 39]))
    points = images.tensors(8, "squash").flatten(1).double().numpy()
    for entry, position in enumerate((50, 3, 59, 39)):
        distances = np.array([np.sqrt(((points[position] - other) ** 2).sum()) for other in points[:40]])
        assert found.nearest[entry] == distances.argmin()
        assert found.distance[entry] == pytest.approx(distances.min(), abs=1e-12)
    assert (found.distance[[1, 3]] == 0).all()  # images that are among the real ones
    assert len(found) == 4
    assert found.predicted.tolist() == np.where(points[[50, 3, 59, 39], 0] > 0.5, 7, 2).tolist()


def test_a_look_at_no_images_is_empty(images: LabelledImages) -> None:
    found = Measurer({}, Judge(SeesPixels(), 8, "squash"), images).look(images.select([]))
    assert len(found) == len(found.nearest) == len(found.distance) == 0


def test_a_copy_among_large_features_is_at_distance_zero() -> None:
    rng = np.random.default_rng(0)
    points = torch.tensor(rng.normal(size=(50, 20)) + 1e4, dtype=torch.float32)
    labels = torch.zeros(50, dtype=torch.long)
    real = Features(points, labels, labels)
    assert (looks(real, real.select(torch.tensor([4, 9]))).distance == 0).all()
