"""A pretrained latent diffusion pipeline, reduced to the operations that guided img2img needs."""

from dataclasses import dataclass

import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline
from torch import nn

from distdiff.generator.denoiser import Denoiser


@dataclass(frozen=True)
class Posterior:
    """The autoencoder's Gaussian over latents, in the UNet's scale: mean and std (B, C, h, w)."""

    mean: torch.Tensor
    std: torch.Tensor

    def sample(self, noise: torch.Tensor) -> torch.Tensor:
        return self.mean + self.std * noise

    def select(self, positions: torch.Tensor) -> "Posterior":
        return Posterior(self.mean[positions], self.std[positions])


class LatentDiffusion(nn.Module):
    """Stable Diffusion's parts, frozen: autoencoder, UNet, text encoder and noise schedule."""

    def __init__(
        self, pipeline: StableDiffusionPipeline, num_steps: int, cfg_scale: float, negative_prompt: str = ""
    ) -> None:
        super().__init__()
        self.vae = pipeline.vae
        self.unet = pipeline.unet
        self.text_encoder = pipeline.text_encoder
        self.tokenizer = pipeline.tokenizer
        self.scheduler_config = dict(pipeline.scheduler.config)
        self.num_steps = num_steps
        self.cfg_scale = cfg_scale
        self.negative_prompt = negative_prompt
        self.eval().requires_grad_(False)

    @property
    def dtype(self) -> torch.dtype:
        return self.unet.dtype

    @property
    def device(self) -> torch.device:
        return self.unet.device

    @torch.no_grad()
    def encode(self, images: torch.Tensor) -> Posterior:
        """Images (B, 3, H, W) in [0, 1] to the autoencoder's posterior."""
        posterior = self.vae.encode(images.to(self.device, self.dtype) * 2 - 1).latent_dist
        scale, shift = self._scale_and_shift()
        return Posterior((posterior.mean - shift) * scale, posterior.std * scale)

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """Latents to images (B, 3, H, W), in [0, 1] up to the decoder's overshoot (not clipped: gradients pass)."""
        scale, shift = self._scale_and_shift()
        return self.vae.decode(latents / scale + shift, return_dict=False)[0] / 2 + 0.5

    def _scale_and_shift(self) -> tuple[float, float]:
        return self.vae.config.scaling_factor, getattr(self.vae.config, "shift_factor", None) or 0.0

    @torch.no_grad()
    def embed(self, prompts: list[str]) -> torch.Tensor:
        """Prompts to text embeddings (len(prompts), tokens, width)."""
        tokens = self.tokenizer(
            prompts,
            padding="max_length",
            truncation=True,
            max_length=self.tokenizer.model_max_length,
            return_tensors="pt",
        )
        use_mask = getattr(self.text_encoder.config, "use_attention_mask", False)
        mask = tokens.attention_mask.to(self.device) if use_mask else None
        return self.text_encoder(tokens.input_ids.to(self.device), attention_mask=mask)[0].to(self.dtype)

    def denoiser(self, embeddings: torch.Tensor, negative: torch.Tensor) -> Denoiser:
        """Denoising of a batch under its embeddings (B, tokens, width); `negative` (1, tokens, width) is for CFG."""
        scheduler = DDIMScheduler.from_config({**self.scheduler_config, "clip_sample": False, "thresholding": False})
        scheduler.set_timesteps(self.num_steps, device=self.device)
        if self.dtype == torch.float64:
            scheduler.alphas_cumprod = scheduler.alphas_cumprod.double()
            scheduler.final_alpha_cumprod = scheduler.final_alpha_cumprod.double()
        return Denoiser(self._guided_model(embeddings, negative), self.decode, scheduler)

    def _guided_model(self, embeddings: torch.Tensor, negative: torch.Tensor):
        if self.cfg_scale <= 1:  # as in diffusers: no classifier-free guidance, one pass
            return lambda latents, timestep: self.unet(latents, timestep, embeddings, return_dict=False)[0]
        both = torch.cat([negative.expand(len(embeddings), -1, -1), embeddings])

        def model(latents: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
            output = self.unet(torch.cat([latents, latents]), timestep, both, return_dict=False)[0]
            unconditional, conditional = output.chunk(2)
            return unconditional + self.cfg_scale * (conditional - unconditional)

        return model
