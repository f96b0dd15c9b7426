"""Small pipelines with random weights, one of each family: 32x32 images, 8x8 latents."""

import torch
from diffusers import (
    AutoencoderKL,
    AutoencoderTiny,
    DDIMScheduler,
    FlowMatchEulerDiscreteScheduler,
    LatentConsistencyModelPipeline,
    LCMScheduler,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from omegaconf import OmegaConf
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    T5Config,
    T5EncoderModel,
    T5Tokenizer,
)

from distdiff.generator.kinds import DIFFUSION_SCHEDULERS
from distdiff.pretraining.networks import build_autoencoder, build_scheduler, build_text_encoder, build_unet
from distdiff.pretraining.tokenizer import build_tokenizer

SMALL = OmegaConf.create(
    {
        "image_size": 32,
        "latent_channels": 4,
        "autoencoder_channels": [8, 8, 8],
        "unet_channels": [16, 16],
        "unet_layers_per_block": 1,
        "text_width": 16,
        "text_layers": 1,
    }
)
WORDS = ["a photo of a cat."]


def small_pipeline(prediction_type: str = "epsilon") -> StableDiffusionPipeline:
    """A Stable Diffusion pipeline, 8x8 latents, on the embedded generator's networks and noise schedule."""
    torch.manual_seed(0)
    tokenizer = build_tokenizer(WORDS, num_merges=10)
    return StableDiffusionPipeline(
        build_autoencoder(SMALL),
        build_text_encoder(SMALL, tokenizer),
        tokenizer,
        build_unet(SMALL),
        DDIMScheduler.from_config(build_scheduler().config, prediction_type=prediction_type),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def small_xl_pipeline() -> StableDiffusionXLPipeline:
    """Two text encoders, pooled embeddings and time ids; an autoencoder with latent means and deviations."""
    torch.manual_seed(0)
    tokenizer = build_tokenizer(WORDS, num_merges=10)
    unet = _unet(
        cross_attention_dim=32,
        addition_embed_type="text_time",
        addition_time_embed_dim=4,
        projection_class_embeddings_input_dim=6 * 4 + 16,
    )
    return StableDiffusionXLPipeline(
        _autoencoder(4, latents_mean=[0.1, -0.2, 0.3, 0.0], latents_std=[0.8, 1.1, 0.9, 1.3]),
        CLIPTextModel(_text_config(tokenizer)),
        CLIPTextModelWithProjection(_text_config(tokenizer)),
        tokenizer,
        tokenizer,
        unet,
        DDIMScheduler.from_config(build_scheduler().config),
        add_watermarker=False,
    )


def small_sd3_pipeline(with_t5: bool = True) -> StableDiffusion3Pipeline:
    """Flow matching, three text encoders, or two."""
    torch.manual_seed(0)
    tokenizer = build_tokenizer(WORDS, num_merges=10)
    transformer = SD3Transformer2DModel(
        sample_size=8,
        patch_size=2,
        in_channels=4,
        out_channels=4,
        num_layers=2,
        attention_head_dim=8,
        num_attention_heads=2,
        caption_projection_dim=16,
        joint_attention_dim=32,
        pooled_projection_dim=32,
        pos_embed_max_size=8,
    )
    t5 = T5Config(vocab_size=64, d_model=32, d_kv=8, d_ff=32, num_layers=1, num_heads=2)
    return StableDiffusion3Pipeline(
        transformer,
        FlowMatchEulerDiscreteScheduler(shift=3.0),
        _autoencoder(4, shift_factor=0.06),
        CLIPTextModelWithProjection(_text_config(tokenizer)),
        tokenizer,
        CLIPTextModelWithProjection(_text_config(tokenizer)),
        tokenizer,
        T5EncoderModel(t5) if with_t5 else None,
        T5Tokenizer() if with_t5 else None,
    )


def small_lcm_pipeline() -> LatentConsistencyModelPipeline:
    """A UNet that takes the guidance scale as an input."""
    parts = small_pipeline().components
    torch.manual_seed(0)
    return LatentConsistencyModelPipeline(
        parts["vae"],
        parts["text_encoder"],
        parts["tokenizer"],
        _unet(cross_attention_dim=16, time_cond_proj_dim=16),
        LCMScheduler.from_config(build_scheduler().config),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


FAMILIES = {
    "sd": small_pipeline,
    "sd_v": lambda: small_pipeline("v_prediction"),
    "sdxl": small_xl_pipeline,
    "sd3": small_sd3_pipeline,
    "lcm": small_lcm_pipeline,
}

# family -> the schedulers that suit it
SCHEDULERS = {
    "sd": DIFFUSION_SCHEDULERS,
    "sd_v": DIFFUSION_SCHEDULERS,
    "sdxl": DIFFUSION_SCHEDULERS,
    "sd3": ("flow_euler",),
    "lcm": ("lcm",),
}
VALID = [(family, scheduler) for family, names in SCHEDULERS.items() for scheduler in names]


def _unet(sample_size: int = 8, **options: object) -> UNet2DConditionModel:
    return UNet2DConditionModel(
        sample_size=sample_size,
        block_out_channels=(16, 16),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=8,
        norm_num_groups=8,
        **options,
    )


def _autoencoder(latent_channels: int, **options: object) -> AutoencoderKL:
    return AutoencoderKL(
        block_out_channels=(8, 8, 8),
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        latent_channels=latent_channels,
        norm_num_groups=8,
        sample_size=32,
        **options,
    )


def _text_config(tokenizer) -> CLIPTextConfig:
    return CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=32,
        projection_dim=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=tokenizer.model_max_length,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )


def tiny_autoencoder(latent_channels: int) -> AutoencoderTiny:
    blocks = {"num_encoder_blocks": (1, 1), "num_decoder_blocks": (1, 1)}
    return AutoencoderTiny(
        latent_channels=latent_channels, encoder_block_out_channels=(8, 8), decoder_block_out_channels=(8, 8), **blocks
    )
