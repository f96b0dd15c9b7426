"""The hidden state of a denoising network at its middle, for a noisy latent."""

from typing import Any

import torch
from diffusers import DDPMScheduler
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
    """The hidden state (B, C, h, w) at the middle of the network for z_t (B, c, H, W), differentiable in z_t.

    Of a UNet, this is the output of its middle block, which its first upsampling block takes; of a transformer, the image
    tokens that the second half of its blocks takes, in their places.
    """
    network = generator.network
    is_unet = hasattr(network, "up_blocks")
    following = network.up_blocks[0] if is_unet else network.transformer_blocks[len(network.transformer_blocks) // 2]

    def stop(module: nn.Module, arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
        raise MiddleReached(named["hidden_states"] if "hidden_states" in named else arguments[0])

    hook = following.register_forward_pre_hook(stop, with_kwargs=True)
    try:
        generator.family.output(latents.to(generator.dtype), timestep, prompts)
    except MiddleReached as reached:
        hidden = reached.hidden
    finally:
        hook.remove()
    if is_unet:
        return hidden
    height, width = (side // network.config.patch_size for side in latents.shape[-2:])
    return hidden.transpose(1, 2).unflatten(2, (height, width))


def at_noise_level(
    generator: LatentDiffusion, latents: torch.Tensor, noise: torch.Tensor, level: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """z_t of clean latents at a noise level from 0 (clean) to 1 (pure noise), and the timestep t that the network takes.

    A level is a fraction of the steps on which the network was trained; for flow matching, it is σ.
    """
    config = generator.scheduler_config
    trained = config["num_train_timesteps"]
    if generator.family.kind.is_flow:
        return (1 - level) * latents + level * noise, torch.tensor(level * trained, device=latents.device)
    step = torch.tensor(round(level * (trained - 1)), device=latents.device)
    return DDPMScheduler.from_config(config).add_noise(latents, noise, step[None]), step
