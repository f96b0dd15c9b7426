"""Computes what a selection sees of its candidates: features, energies and the guide's probabilities."""

import io
from collections.abc import Callable, Sequence
from functools import cached_property

import torch
from torch.nn import functional as F

from distdiff.data.datasets import sentences
from distdiff.data.pixels import to_tensor
from distdiff.data.reading.decoding import read_image
from distdiff.encoders.guide import GuideEncoder
from distdiff.expansion.materials import Materials
from distdiff.methods.item import WorkItem
from distdiff.prototypes.exemplars import Exemplars
from distdiff.prototypes.fitting import image_features
from distdiff.ranks.trainer import trainer_device
from distdiff.selection.base import Candidates
from distdiff.store.journal import Row

BATCH = 64  # fixed, so that rounding and therefore the selection are the same in every process


class Examiner:
    """Examines saved image files in the order of the plan, so that it does not matter which process made which image."""

    def __init__(self, materials: Materials) -> None:
        self.materials = materials
        self.device = trainer_device(materials.config.trainer)

    @torch.no_grad()
    def candidates(
        self, label: int, items: Sequence[WorkItem], rows: Sequence[Row], read: Callable[[int], bytes]
    ) -> Candidates:
        """The candidates of one class, with the label `label`.

        `read(i)` returns the image file of `items[i]`, and `rows[i]` is the metadata row of `items[i]`.
        """
        energy = self.materials.image_energy.to(self.device)
        features, energies, probabilities = [], [], []

        def look(places: Sequence[int]) -> torch.Tensor:
            images = [read_image(io.BytesIO(read(index)), items[index].file_name) for index in places]
            return torch.stack(list(map(to_tensor, images))).to(self.device, energy.energy.dtype)

        for start in range(0, len(items), BATCH):
            part = range(start, min(start + BATCH, len(items)))
            pixels = look(part)
            raw = energy.encoder.features(pixels)
            seen = F.normalize(raw, dim=-1)
            targets = energy.targets([items[index] for index in part], self.materials.seed).to(self.device)
            features.append(seen.cpu())
            energies.append(energy.of_features(seen, targets).cpu())
            probabilities.append(self._probabilities(raw, seen).cpu())
        return Candidates(
            label=label,
            rows=rows,
            features=torch.cat(features),
            real=self._real[torch.from_numpy(self.materials.train.labels == label)],
            energies=torch.cat(energies),
            probabilities=torch.cat(probabilities),
            all_real=Exemplars.of(self.materials.train, self._real),
            prompts=sentences(self.materials.config.dataset, self.materials.train.class_names),
            look=look,
        )

    def _probabilities(self, raw: torch.Tensor, features: torch.Tensor) -> torch.Tensor:
        """The guide's class probabilities (B, classes).

        An encoder other than the guide predicts no classes. With such an encoder, a softmax of the features' cosines to
        the class means takes the place of the probabilities.
        """
        encoder = self.materials.image_energy.encoder
        if isinstance(encoder, GuideEncoder):
            return encoder.classifier.head(raw).softmax(-1)
        return (features @ self._class_means.to(features).T).softmax(-1)

    @cached_property
    def _real(self) -> torch.Tensor:
        """φ of the real images, (n, D), on the CPU."""
        materials = self.materials
        encoder = materials.image_energy.encoder
        return image_features(materials.train, encoder, materials.size, materials.data.fit)

    @cached_property
    def _class_means(self) -> torch.Tensor:
        """The mean feature of each class as a unit vector, (classes, D). A class without images has zeros."""
        labels = torch.from_numpy(self.materials.train.labels)
        classes = range(len(self.materials.train.class_names))
        sums = torch.stack([self._real[labels == label].sum(0) for label in classes])
        return F.normalize(sums, dim=-1)
