"""The hidden state of a denoising network at its middle, for a noisy latent."""

from typing import Any

import diffusers
import torch
from torch import nn

from distdiff.generator.conditioning import Conditioning
from distdiff.generator.latent_diffusion import LatentDiffusion


class MiddleReached(Exception):
    """Ends a pass through the network where its middle is reached; the rest of the network is not needed."""

    def __init__(self, hidden: torch.Tensor) -> None:
        super().__init__()
        self.hidden = hidden


def hidden_state(
    generator: LatentDiffusion, latents: torch.Tensor, timestep: torch.Tensor, prompts: Conditioning
) -> torch.Tensor:
    """The hidden state (B, C, h, w) at the middle of the network for square z_t (B, c, H, H), differentiable in z_t.

    Of a UNet, this is the output of its middle block; of a transformer, the image tokens between the two halves of its blocks.
    """

    def stop(module: nn.Module, arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
        raise MiddleReached(named["hidden_states"] if "hidden_states" in named else arguments[0])

    hook = generator.family.second_half().register_forward_pre_hook(stop, with_kwargs=True)
    try:
        generator.family.output(latents.to(generator.dtype), timestep, prompts)
    except MiddleReached as reached:
        hidden = reached.hidden
    finally:
        hook.remove()
    return generator.family.middle_map(hidden)


def noise_level_of(generator: LatentDiffusion, fraction: float) -> tuple[float, float, torch.Tensor]:
    """(signal, noise, t) such that z_t = signal · z_0 + noise · ε, at a fraction from 0 to 1 of the steps of the noise schedule.

    The schedule is that on which the network was trained, whatever `generator.scheduler` is. For flow matching, the fraction is
    σ.
    """
    config = generator.scheduler_config
    if generator.family.kind.is_flow:
        return 1 - fraction, fraction, torch.tensor(fraction * config["num_train_timesteps"])
    schedule = getattr(diffusers, config["_class_name"]).from_config(config)
    step = round(fraction * (config["num_train_timesteps"] - 1))
    signal = float(schedule.alphas_cumprod[step])
    return signal**0.5, (1 - signal) ** 0.5, torch.tensor(step)
