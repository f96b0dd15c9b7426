"""The `pretrain` keys."""

from collections.abc import Sequence
from dataclasses import dataclass

from omegaconf import DictConfig

from distdiff.errors import UserError
from distdiff.keys import Group, key
from distdiff.ranks.arrangement import count_devices

AUTOENCODER_GROUPS, UNET_GROUPS = 8, 16  # of the networks' group normalization
SMALLEST = 16  # pixels a side
SIZE_MULTIPLE = 8  # StableDiffusionPipeline refuses other heights and widths
ALL, TRAIN = "all", "train"
FLOAT32_WEIGHTS = ("32-true", "32", "16-mixed", "16", "bf16-mixed", "bf16")


@dataclass
class PretrainKeys:
    output_dir: str | None = None  # null: the folder `pipeline` in the run's directory
    images: str = key(choices=(ALL, TRAIN))  # train: without the images on which a study would measure
    image_size: int | None = key(at_least=SMALLEST)  # null: the images' own size, at most dataset.image_size
    latent_channels: int = key(4, at_least=1)
    autoencoder_channels: list[int] = key([16, 32, 32], at_least=8)
    autoencoder_steps: int = key(1200, at_least=1)
    autoencoder_batch_size: int = key(32, at_least=1)
    autoencoder_learning_rate: float = key(1e-3, above=0, at_most=1e30)
    kl_weight: float = key(1e-3, at_least=0)
    unet_channels: list[int] = key([48, 96], at_least=16)
    unet_layers_per_block: int = key(1, at_least=1)
    text_width: int = key(64, at_least=8)
    text_layers: int = key(2, at_least=1)
    denoiser_steps: int = key(4500, at_least=1)
    denoiser_batch_size: int = key(48, at_least=1)
    denoiser_learning_rate: float = key(1e-3, above=0, at_most=1e30)
    ema_decay: float = key(0.999, at_least=0, at_most=0.999999)  # at 1, the average would stay at the random start
    prompt_dropout: float = key(0.1, at_least=0, at_most=1)
    grid_every: int = key(1000, at_least=1)


def check(config: DictConfig) -> None:
    """Raises `UserError` for sizes of which diffusers or transformers cannot build the networks, and for the trainer.

    A pipeline is trained on one device, and its weights are float32.
    """
    _check_channels("autoencoder_channels", config.pretrain.autoencoder_channels, AUTOENCODER_GROUPS)
    _check_channels("unet_channels", config.pretrain.unet_channels, UNET_GROUPS)
    keys = config.pretrain
    multiple = size_multiple(keys)
    if keys.image_size is not None and keys.image_size % multiple:
        raise UserError(
            f"pretrain.image_size={keys.image_size} is not allowed: a multiple of {multiple}, as the autoencoder halves "
            f"the sides {len(keys.autoencoder_channels) - 1} times"
            + (f", and diffusers wants a multiple of {SIZE_MULTIPLE}" if multiple == SIZE_MULTIPLE else "")
        )
    if keys.text_width % text_heads(keys.text_width):
        raise UserError(
            f"pretrain.text_width={keys.text_width} is not allowed: {text_heads(keys.text_width)} attention heads cannot "
            "share it; a multiple of 16 always fits"
        )
    trainer = config.trainer
    if trainer.num_nodes > 1 or (str(trainer.devices) not in ("auto", "-1") and count_devices(trainer) > 1):
        raise UserError(f"trainer.devices={trainer.devices} is not allowed here: pretrain.py trains on one device")
    if trainer.precision not in FLOAT32_WEIGHTS:
        raise UserError(
            f"trainer.precision={trainer.precision} is not allowed here: pretrain.py keeps its weights in float32; one of "
            + ", ".join(FLOAT32_WEIGHTS)
        )


def size_multiple(keys: DictConfig) -> int:
    """The number of which `pretrain.image_size` is a multiple."""
    return max(SIZE_MULTIPLE, 2 ** (len(keys.autoencoder_channels) - 1))


def text_heads(width: int) -> int:
    """The number of attention heads of a text encoder that is `width` wide."""
    return max(1, width // 16)


def _check_channels(name: str, channels: Sequence[int], groups: int) -> None:
    if not channels or any(number % groups for number in channels):
        raise UserError(
            f"pretrain.{name}={list(channels)} is not allowed: one or more multiples of {groups}, the number of groups in "
            "which channels are normalized"
        )


PRETRAIN = Group("pretrain", PretrainKeys, check=check, paths=("output_dir",))
