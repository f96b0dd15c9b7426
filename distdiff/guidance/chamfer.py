"""Chamfer guidance: new images cover the real images of their class and stay near them (Dall'Asen et al., 2025)."""

from collections.abc import Sequence
from typing import Any

import torch
from torch.nn import functional as F

from distdiff.energy.base import PlannedImage
from distdiff.guidance.batch import Aims, GuidedBatch
from distdiff.guidance.real import RealFeatures
from distdiff.guidance.relative import RelativeSteps
from distdiff.keys import NonNegative, PositiveInt


class Chamfer(RelativeSteps):
    """Lowers the squared distances of the Chamfer distance between features of new images and of real images.

    The paper's distance of a set X of new images from a set Y of real images of the class is
    mean_x min_y ‖x − y‖² (fidelity) + mean_y min_x ‖x − y‖² (coverage). Here each image is guided alone, so the second
    term becomes the distance from one real image y_e that is planned for each copy:

        F = w_f min_y ‖φ − y‖² + w_c ‖φ − y_e‖²

    y_e is never the copy's own source, unless the class has no other image. Copy c of all sources of a class has each
    real image as y_e exactly once, if Y has the whole class. Y has the first `num_exemplars` images of the class in an
    order that the seed decides.

    With a `group_size`, the copies of a source are made together, and F is the Chamfer distance of the group itself:
    each real image pulls the copy that is nearest to it. A copy that is not finite has no part in this.
    """

    def __init__(
        self,
        real_features: RealFeatures,
        *,
        fidelity_weight: NonNegative,
        coverage_weight: NonNegative,
        num_exemplars: PositiveInt,
        group_size: PositiveInt | None = None,
        **keys: Any,
    ) -> None:
        super().__init__(**keys)
        self.real = real_features
        self.fidelity_weight = fidelity_weight
        self.coverage_weight = coverage_weight
        self.num_exemplars = num_exemplars
        self.group_size = group_size

    def aims(self, images: Sequence[PlannedImage], seed: int) -> Aims:
        """The planned exemplar y_e, then the class's real images Y, padded with −1; all are indices of real images."""
        aims = torch.full((len(images), 1 + self.num_exemplars), -1)
        for row, image in zip(aims, images, strict=True):
            own = self.real.order(image, seed)[: self.num_exemplars]
            row[0] = self.exemplar(image, seed)
            row[1 : 1 + len(own)] = torch.tensor(own)
        if self.group_size is not None:
            return Aims(aims)
        return Aims(aims, {"guidance_exemplar": [self.real.keys[number] for number in aims[:, 0].tolist()]})

    def exemplar(self, image: PlannedImage, seed: int) -> int:
        """The index of y_e: with n images in Y, copy c of the source with rank r has the image r + 1 + c modulo n,
        where its own source is left out of the n."""
        others = self.real.others(image, seed, self.num_exemplars)
        return others[(self.real.rank(image, seed) + image.copy) % len(others)]

    def objective(self, raw: torch.Tensor, batch: GuidedBatch) -> torch.Tensor:
        features = F.normalize(raw, dim=1)
        real, there = self.real.features.to(features), batch.aims[:, 1:] >= 0
        apart = (features[:, None] - real[batch.aims[:, 1:].clamp(min=0)]).square().sum(-1)  # (B, Y)
        fidelity = apart.masked_fill(~there, torch.inf).amin(1)
        return self.fidelity_weight * fidelity + self.coverage_weight * self.coverage(features, apart, there, batch)

    def coverage(
        self, features: torch.Tensor, apart: torch.Tensor, there: torch.Tensor, batch: GuidedBatch
    ) -> torch.Tensor:
        """Each image's part (B,) of the coverage term; `apart` (B, Y) are squared distances, valid where `there`."""
        if self.group_size is None:
            planned = self.real.features.to(features)[batch.aims[:, 0]]
            return (features - planned).square().sum(-1)
        finite = features.isfinite().all(1, keepdim=True)
        first = apart.masked_fill(~finite, torch.inf).argmin(0, keepdim=True)  # a copy that is broken spoils no other
        nearest = torch.zeros_like(there).scatter(0, first, True) & there
        return torch.where(nearest, apart, 0).sum(1) * finite.sum() / there.sum(1)
