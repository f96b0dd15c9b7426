"""The second stage of latent diffusion, which trains the UNet and the text encoder that conditions the UNet."""

import lightning as L
import torch
from diffusers import DDIMScheduler, UNet2DConditionModel
from torch.nn import functional as F
from transformers import CLIPTextModel

from distdiff.pretraining.autoencoder import one_cycle_of


class DenoiserTraining(L.LightningModule):
    """Minimises the error of the predicted noise (Ho et al., 2020, equation 14).

    Prompts are dropped with probability `prompt_dropout`, so that the UNet can be used with classifier-free guidance.

    A batch is (means (B, C, h, w), standard deviations (B, C, h, w), labels (B,)). The means and standard deviations
    are those of the autoencoder's posterior, scaled so that the means of the training images have unit variance.
    """

    def __init__(
        self,
        unet: UNet2DConditionModel,
        text_encoder: CLIPTextModel,
        scheduler: DDIMScheduler,
        prompt_tokens: torch.Tensor,
        empty_tokens: torch.Tensor,
        learning_rate: float,
        prompt_dropout: float,
    ) -> None:
        super().__init__()
        self.unet = unet
        self.text_encoder = text_encoder
        self.scheduler = scheduler
        self.learning_rate = learning_rate
        self.prompt_dropout = prompt_dropout
        self.register_buffer(
            "tokens", torch.cat([prompt_tokens, empty_tokens]), persistent=False
        )  # one row for each class, then one for the empty prompt

    def loss(self, mean: torch.Tensor, std: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        latents = mean + std * torch.randn_like(mean)
        noise = torch.randn_like(latents)
        timesteps = torch.randint(0, self.scheduler.config.num_train_timesteps, (len(latents),), device=self.device)
        noisy = self.scheduler.add_noise(latents, noise, timesteps)
        dropped = torch.rand(len(labels), device=self.device) < self.prompt_dropout
        rows = torch.where(dropped, len(self.tokens) - 1, labels)
        embeddings = self.text_encoder(self.tokens)[0][rows]
        predicted = self.unet(noisy, timesteps, embeddings).sample
        return F.mse_loss(predicted, noise)

    def training_step(self, batch: list[torch.Tensor], _: int) -> torch.Tensor:
        loss = self.loss(*batch)
        self.log("denoiser/loss", loss)
        return loss

    def validation_step(self, batch: list[torch.Tensor], _: int) -> None:
        self.log("denoiser/validation_loss", self.loss(*batch))

    def configure_optimizers(self) -> dict[str, object]:
        return one_cycle_of(self, self.learning_rate)
