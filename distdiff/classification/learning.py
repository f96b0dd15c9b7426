"""Records when a classifier learnt each of its training images."""

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from torch.nn import functional as F

from distdiff.classification.data import ImageTensors

EVALUATIONS = 40  # approximate number of evaluations of all images in one training
BATCH = 200


class RecordLearning(Callback):
    """Evaluates all images at intervals while a classifier is trained, without changing the training.

    `last_wrong` (n,) says for each image at which evaluation it was classified wrongly for the last time. Evaluations
    are numbered from 1; 0 means that the image was never classified wrongly. `loss` (n,) has each image's mean
    cross-entropy over all evaluations.
    """

    def __init__(self, images: ImageTensors, steps: int) -> None:
        self.images = images
        self.every = max(1, steps // EVALUATIONS)
        self.last_wrong = torch.zeros(len(images), dtype=torch.int64)
        self.loss = torch.zeros(len(images))
        self._evaluations = 0

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: object) -> None:
        if trainer.global_step % self.every:
            return
        self._evaluations += 1
        classifier = pl_module.classifier
        classifier.eval()
        with torch.no_grad():
            for start in range(0, len(self.images), BATCH):
                places = range(start, min(start + BATCH, len(self.images)))
                pixels, labels = zip(*(self.images[place] for place in places), strict=True)
                targets = torch.tensor(labels, device=pl_module.device)
                logits = classifier(torch.stack(pixels).to(pl_module.device))
                wrong = (logits.argmax(-1) != targets).cpu()
                part = slice(places.start, places.stop)
                self.last_wrong[part] = torch.where(wrong, self._evaluations, self.last_wrong[part])
                losses = F.cross_entropy(logits, targets, reduction="none").cpu()
                self.loss[part] += (losses - self.loss[part]) / self._evaluations
        classifier.train()

    def order(self) -> torch.Tensor:
        """A number for each image that says how late the image was learnt, (n,) float64; larger is later.

        Among images with the same `last_wrong`, an image with a larger mean loss counts as learnt later.
        """
        rank = torch.empty(len(self.loss), dtype=torch.float64)
        rank[self.loss.argsort(stable=True)] = torch.arange(len(self.loss), dtype=torch.float64)
        return self.last_wrong.double() + rank / len(self.loss)
