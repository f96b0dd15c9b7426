"""Stable Diffusion 1 and 2."""

import math
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from diffusers import DiffusionPipeline
from diffusers.pipelines.latent_consistency_models.pipeline_latent_consistency_img2img import (
    LatentConsistencyModelImg2ImgPipeline,
)

from distdiff.generator.conditioning import Conditioning
from distdiff.generator.families.base import Family
from distdiff.generator.kinds import STABLE_DIFFUSION


class StableDiffusion(Family):
    """Stable Diffusion 1.x and 2.x and their distillations (Turbo, and LCM with the guidance scale as a network input)."""

    kind = STABLE_DIFFUSION
    added_condition: ClassVar[str | None] = None  # what the network takes besides the text

    def __init__(self, pipeline: DiffusionPipeline, cfg_scale: float) -> None:
        super().__init__(pipeline, cfg_scale)
        self.scale_embedding = self._scale_embedding()

    @property
    def classifier_free(self) -> bool:
        return super().classifier_free and self.scale_embedding is None

    def _odd_network(self, config):
        if reason := super()._odd_network(config):
            return reason
        if config.num_class_embeds is not None or config.class_embed_type is not None:
            return "its network takes class labels, so it is no plain text-to-image model"
        if config.encoder_hid_dim_type not in (None, "text_proj"):
            return f"its network takes {config.encoder_hid_dim_type}, so it is no plain text-to-image model"
        if config.addition_embed_type != self.added_condition:
            return (
                f"its network has addition_embed_type={config.addition_embed_type or 'null'}, and that of a {self.kind.name} "
                f"model {self.added_condition or 'null'}"
            )
        return None

    def widths(self):
        yield "text", text_width(self.network.config), self._encoder_config("text_encoder").hidden_size

    def embed(self, prompts, device):
        return Conditioning(self.pipeline.encode_prompt(prompts, device, 1, False)[0])

    def embed_negative(self, prompt, device):
        return Conditioning(self.pipeline.encode_prompt([""], device, 1, True, [prompt] if prompt else None)[1])

    def output(self, latents, timestep, condition):
        return self.network(
            latents,
            timestep,
            condition.tokens,
            timestep_cond=self._scale_for(latents),
            added_cond_kwargs=self._added(latents, condition),
            return_dict=False,
        )[0]

    def second_half(self):
        return self.network.up_blocks[0]

    def middle_shape(self, latent_side):
        channels = self.network.config.block_out_channels
        return channels[-1], math.ceil(latent_side / 2 ** (len(channels) - 1))  # each block but the last one halves

    def middle_map(self, hidden):
        return hidden

    def _added(self, latents: torch.Tensor, condition: Conditioning) -> dict[str, torch.Tensor] | None:
        return None

    def _scale_embedding(self) -> torch.Tensor | None:
        """The embedded guidance scale (1, width) for distilled networks (Meng et al., 2023); None for others."""
        width = self.network.config.time_cond_proj_dim
        if width is None:
            return None
        scale = torch.tensor([self.cfg_scale - 1.0])
        return LatentConsistencyModelImg2ImgPipeline.get_guidance_scale_embedding(None, scale, embedding_dim=width)

    def _scale_for(self, latents: torch.Tensor) -> torch.Tensor | None:
        if self.scale_embedding is None:
            return None
        self.scale_embedding = self.scale_embedding.to(latents)
        return self.scale_embedding.expand(len(latents), -1)


def text_width(config: Mapping[str, Any]) -> int | None:
    """The width of the text that a UNet takes; some UNets project it first."""
    width = config.encoder_hid_dim or config.cross_attention_dim
    return width if isinstance(width, int) else next(iter(width))
