"""The untrained parts of a small Stable Diffusion pipeline, built from classes of diffusers and transformers."""

from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from omegaconf import DictConfig
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from distdiff.pretraining.config import AUTOENCODER_GROUPS, UNET_GROUPS, text_heads


def build_autoencoder(config: DictConfig) -> AutoencoderKL:
    """A KL autoencoder; each entry of `autoencoder_channels` after the first halves the sides of the latents."""
    channels = list(config.autoencoder_channels)
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * len(channels),
        up_block_types=("UpDecoderBlock2D",) * len(channels),
        block_out_channels=channels,
        layers_per_block=1,
        latent_channels=config.latent_channels,
        norm_num_groups=AUTOENCODER_GROUPS,
        sample_size=config.image_size,
    )


def build_unet(config: DictConfig) -> UNet2DConditionModel:
    """A text-conditioned UNet on the autoencoder's latents.

    It has attention at all resolutions except the highest.
    """
    channels = list(config.unet_channels)
    attending = len(channels) - 1
    return UNet2DConditionModel(
        sample_size=config.image_size // 2 ** (len(config.autoencoder_channels) - 1),
        in_channels=config.latent_channels,
        out_channels=config.latent_channels,
        down_block_types=("DownBlock2D", *("CrossAttnDownBlock2D",) * attending),
        up_block_types=(*("CrossAttnUpBlock2D",) * attending, "UpBlock2D"),
        block_out_channels=channels,
        layers_per_block=config.unet_layers_per_block,
        cross_attention_dim=config.text_width,
        attention_head_dim=4,
        norm_num_groups=UNET_GROUPS,
    )


def build_text_encoder(config: DictConfig, tokenizer: CLIPTokenizer) -> CLIPTextModel:
    """A CLIP text transformer with the vocabulary of `tokenizer`."""
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=config.text_width,
            intermediate_size=4 * config.text_width,
            num_hidden_layers=config.text_layers,
            num_attention_heads=text_heads(config.text_width),
            max_position_embeddings=tokenizer.model_max_length,
            projection_dim=config.text_width,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def build_scheduler() -> DDIMScheduler:
    """Stable Diffusion's noise schedule (Rombach et al., 2022)."""
    return DDIMScheduler(
        num_train_timesteps=1000,
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
        prediction_type="epsilon",
    )
