"""The first stage of latent diffusion, which trains the autoencoder (Rombach et al., 2022, section 3.1).

The adversarial term of the published loss is left out.
"""

import lightning as L
import torch
from diffusers import AutoencoderKL
from torch.nn import functional as F

from distdiff.classification.optimizers import adamw


class AutoencoderTraining(L.LightningModule):
    """Minimises the L1 + L2 reconstruction error plus `kl_weight` times the mean KL divergence from N(0, 1).

    The mean of the KL divergence is taken over all elements of the latents.

    The first element of a batch is the images, (B, 3, H, W) in [0, 1].
    """

    def __init__(self, autoencoder: AutoencoderKL, learning_rate: float, kl_weight: float) -> None:
        super().__init__()
        self.autoencoder = autoencoder
        self.learning_rate = learning_rate
        self.kl_weight = kl_weight

    def loss(self, images: torch.Tensor) -> torch.Tensor:
        target = images * 2 - 1
        posterior = self.autoencoder.encode(target).latent_dist
        reconstruction = self.autoencoder.decode(posterior.sample()).sample
        error = F.l1_loss(reconstruction, target) + F.mse_loss(reconstruction, target)
        return error + self.kl_weight * posterior.kl().mean() / posterior.mean[0].numel()

    def training_step(self, batch: list[torch.Tensor], _: int) -> torch.Tensor:
        loss = self.loss(batch[0])
        self.log("autoencoder/loss", loss)
        return loss

    def validation_step(self, batch: list[torch.Tensor], _: int) -> None:
        self.log("autoencoder/validation_loss", self.loss(batch[0]))

    def configure_optimizers(self) -> dict[str, object]:
        return one_cycle_of(self, self.learning_rate)


def one_cycle_of(module: L.LightningModule, learning_rate: float) -> dict[str, object]:
    """The one-cycle schedule over the trainer's planned steps, for the parameters of `module` that are trained."""
    return adamw(
        [parameter for parameter in module.parameters() if parameter.requires_grad],
        int(module.trainer.estimated_stepping_batches),
        learning_rate=learning_rate,
        weight_decay=1e-4,
        schedule="one_cycle",
        warmup=0.1,
    )
