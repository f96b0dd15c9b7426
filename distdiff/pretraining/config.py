"""The `pretrain` keys."""

from dataclasses import dataclass

from omegaconf import DictConfig

from distdiff.errors import UserError
from distdiff.keys import Group, key
from distdiff.ranks.arrangement import count_devices


@dataclass
class PretrainKeys:
    output_dir: str | None = None  # null: the folder `pipeline` in the run's directory
    image_size: int = key(at_least=16)
    latent_channels: int = key(4, at_least=1)
    autoencoder_channels: list[int] = key([16, 32, 32], at_least=4)
    autoencoder_steps: int = key(1200, at_least=1)
    autoencoder_batch_size: int = key(32, at_least=1)
    autoencoder_learning_rate: float = key(1e-3, above=0)
    kl_weight: float = key(1e-3, at_least=0)
    unet_channels: list[int] = key([48, 96], at_least=8)
    unet_layers_per_block: int = key(1, at_least=1)
    text_width: int = key(64, at_least=8)
    text_layers: int = key(2, at_least=1)
    denoiser_steps: int = key(4500, at_least=1)
    denoiser_batch_size: int = key(48, at_least=1)
    denoiser_learning_rate: float = key(1e-3, above=0)
    ema_decay: float = key(0.999, at_least=0, at_most=1)
    prompt_dropout: float = key(0.1, at_least=0, at_most=1)
    grid_every: int = key(1000, at_least=1)


def check(config: DictConfig) -> None:
    """Raises `UserError` for more than one device."""
    trainer = config.trainer
    if trainer.num_nodes > 1 or (str(trainer.devices) not in ("auto", "-1") and count_devices(trainer) > 1):
        raise UserError(f"trainer.devices={trainer.devices} is not allowed here: pretrain.py trains on one device")


PRETRAIN = Group("pretrain", PretrainKeys, check=check, paths=("output_dir",))
