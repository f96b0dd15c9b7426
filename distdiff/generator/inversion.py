"""Deterministic inversion: the noise from which a diffusion model draws a given latent, without any random numbers."""

from collections.abc import Callable

import numpy as np
import torch
from diffusers import FlowMatchEulerDiscreteScheduler

from distdiff.errors import UserError
from distdiff.generator.conditioning import Prompts
from distdiff.generator.denoiser import Denoiser
from distdiff.generator.kinds import why_not_invertible
from distdiff.generator.latent_diffusion import LatentDiffusion
from distdiff.generator.latents import Latents
from distdiff.generator.precision import whole_float32


def check_invertible(generator: LatentDiffusion) -> None:
    """Raises `UserError` for a model or scheduler that does not denoise along a path that can be followed back."""
    reason = why_not_invertible(generator.scheduler_name, generator.num_steps, generator.family.kind)
    if reason is None and generator.scheduler_config.get("prediction_type") == "sample":
        reason = "generator.model is not allowed: its network predicts clean latents, from which no noise follows here"
    if reason is not None:
        raise UserError(f"{reason} (the method inverts images)")


@torch.no_grad()
def invert(generator: LatentDiffusion, clean: torch.Tensor, prompts: Prompts, num_steps: int) -> torch.Tensor:
    """The latents (B, C, h, w), in unit variance, at which denoising would start to end at `clean` (B, C, h, w).

    DDIM inversion (Song et al., 2021, section 4.3; Dhariwal & Nichol, 2021, appendix F): the path of the probability flow
    is followed backwards in `num_steps` steps, from the end of the generator's noise schedule to its first step, under
    `prompts` (one for each sample) and without classifier-free guidance. For flow matching, it is the same path by Euler
    steps. One step evaluates the network once. Raises `UserError` if there are fewer noise levels than `num_steps`.
    """
    denoiser = generator.denoiser(Prompts(prompts.positive, None))
    latents = clean.to(generator.device, generator.latent_dtype)
    if isinstance(denoiser.scheduler, FlowMatchEulerDiscreteScheduler):
        return _along_flow(denoiser, latents, num_steps)
    return _along_diffusion(denoiser, latents, num_steps)


def inverter(
    generator: LatentDiffusion, latents: Callable[[], Latents], prompts: Prompts, labels: np.ndarray, num_steps: int
) -> Callable[[torch.Tensor], torch.Tensor]:
    """A function that inverts the images at given positions, each under the first prompt of its class (`invert`).

    `latents` gives the latents of all images when they are first needed; `labels` (n,) are the classes of the images. The
    inversions are returned on the CPU. Raises `UserError` if images cannot be inverted.
    """
    check_invertible(generator)

    def inverted(positions: torch.Tensor) -> torch.Tensor:
        own = prompts.first_of(torch.from_numpy(labels)[positions])
        with whole_float32(generator.dtype):
            return invert(generator, latents().select(positions).mean, own, num_steps).cpu()

    return inverted


def _along_diffusion(denoiser: Denoiser, latents: torch.Tensor, num_steps: int) -> torch.Tensor:
    """Follows a diffusion model. The network is asked at the time of the noisier latents, as in denoising."""
    last, levels = round(float(denoiser.scheduler.timesteps[0])), denoiser.levels
    if num_steps > last:
        raise UserError(
            f"method.inversion_steps={num_steps} is not allowed: this noise schedule has {last} steps to choose from"
        )
    times = [round(last * step / num_steps) for step in range(1, num_steps + 1)]
    alpha_bars = denoiser.scheduler.alphas_cumprod.double().cpu()[times]
    signals = [*alpha_bars.sqrt().tolist()[:-1], float(levels.signal[0])]
    noises = [*(1 - alpha_bars).sqrt().tolist()[:-1], float(levels.noise[0])]
    signal, noise = float(levels.next_signal[-1]), float(levels.next_noise[-1])
    is_velocity = denoiser.scheduler.config.prediction_type == "v_prediction"
    for time, next_signal, next_noise in zip(torch.tensor(times, device=latents.device), signals, noises, strict=True):
        output = denoiser.model(latents, time)
        if is_velocity:  # Salimans & Ho, 2022
            clean, epsilon = signal * latents - noise * output, signal * output + noise * latents
        else:
            clean, epsilon = (latents - noise * output) / signal, output
        latents = next_signal * clean + next_noise * epsilon
        signal, noise = next_signal, next_noise
    return latents


def _along_flow(denoiser: Denoiser, latents: torch.Tensor, num_steps: int) -> torch.Tensor:
    """Follows a flow matching model, in the scheduler's own latents (1 − σ) ẑ0 + σ ε."""
    first = float(denoiser.scheduler.sigmas[0])
    trained = denoiser.scheduler.config.num_train_timesteps
    times = torch.tensor(
        [trained * first * step / num_steps for step in range(1, num_steps + 1)], device=latents.device
    )
    for time in times.to(denoiser.scheduler.timesteps.dtype):
        latents = latents + first / num_steps * denoiser.model(latents, time)
    return latents / float(denoiser.levels.scale[0])
