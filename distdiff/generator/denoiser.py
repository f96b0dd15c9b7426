"""One batch's denoising: the model under its prompts, and the schedule it runs on."""

import copy
from collections.abc import Callable

import torch
from diffusers import DDIMScheduler


class Denoiser:
    """The operations on latents (B, C, h, w) that a guidance method composes; `index` counts the full schedule, 0 first.

    `model(latents, timestep)` gives the model's output with classifier-free guidance applied; `decode` takes latents to
    images (B, 3, H, W) in [0, 1]. All are differentiable.
    """

    def __init__(
        self,
        model: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
        decode: Callable[[torch.Tensor], torch.Tensor],
        scheduler: DDIMScheduler,
    ) -> None:
        self.model = model
        self.decode = decode
        self.scheduler = scheduler

    def fork(self) -> "Denoiser":
        """A denoiser whose steps leave this one's scheduler state untouched, for looking ahead."""
        return Denoiser(self.model, self.decode, copy.deepcopy(self.scheduler))

    def add_noise(self, clean: torch.Tensor, noise: torch.Tensor, index: int) -> torch.Tensor:
        """z_t of `clean` at the noise level of step `index`."""
        timestep = self.scheduler.timesteps[index].to(clean.device)
        return self.scheduler.add_noise(clean, noise, timestep.expand(len(clean)))

    def predict(self, latents: torch.Tensor, index: int) -> torch.Tensor:
        """The model's output at z_t."""
        return self.model(latents, self.scheduler.timesteps[index])

    def clean(self, latents: torch.Tensor, output: torch.Tensor, index: int) -> torch.Tensor:
        """ẑ0, the clean latent that the output implies (Ho et al., 2020, eq. 15; Salimans & Ho, 2022, for v)."""
        alpha_bar = self.scheduler.alphas_cumprod[self.scheduler.timesteps[index]].to(latents)
        signal, noise = alpha_bar.sqrt(), (1 - alpha_bar).sqrt()
        match self.scheduler.config.prediction_type:
            case "epsilon":
                return (latents - noise * output) / signal
            case "v_prediction":
                return signal * latents - noise * output
            case _:  # "sample"
                return output

    def advance(self, latents: torch.Tensor, output: torch.Tensor, index: int) -> torch.Tensor:
        """z_{t−1} by the scheduler's own update."""
        return self.scheduler.step(output, self.scheduler.timesteps[index], latents, return_dict=False)[0]
