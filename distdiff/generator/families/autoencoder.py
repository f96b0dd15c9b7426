"""Whether a text-to-image model can have a certain autoencoder."""

from diffusers import AsymmetricAutoencoderKL, AutoencoderKL
from torch import nn


def autoencoder_fault(vae: nn.Module) -> str | None:
    """What makes this autoencoder unfit for a text-to-image model; None if nothing does."""
    config = vae.config
    if not isinstance(vae, AutoencoderKL | AsymmetricAutoencoderKL):
        return f"its vae is a {type(vae).__name__}, and a text-to-image model has an AutoencoderKL"
    if (config.in_channels, config.out_channels) != (3, 3):
        return f"its vae takes {config.in_channels} and gives {config.out_channels} colours, not 3"
    given = {name: getattr(config, name, None) for name in ("latents_mean", "latents_std")}
    if (absent := [name for name, values in given.items() if values is None]) and len(absent) == 1:
        return f"its vae has no {absent[0]}, which goes with the other one of {' and '.join(given)}"
    for name, values in given.items():
        if values is not None and (
            len(values) != config.latent_channels or (name == "latents_std" and min(values) <= 0)
        ):
            above = " above 0" if name == "latents_std" else ""
            return f"{name} of its vae is {list(values)}, not {config.latent_channels} numbers{above}"
    return None
