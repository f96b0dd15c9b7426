"""What differs between the kinds of pipelines: how prompts are embedded and how the denoising network is called.

To add a kind, add its `Kind` to `kinds.py`, and here a subclass of `Family` that names it.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from diffusers import DiffusionPipeline, SchedulerMixin
from diffusers.pipelines.latent_consistency_models.pipeline_latent_consistency_img2img import (
    LatentConsistencyModelImg2ImgPipeline,
)
from diffusers.pipelines.stable_diffusion_3.pipeline_stable_diffusion_3 import calculate_shift
from torch import nn
from transformers import PreTrainedTokenizerBase

from distdiff.errors import UserError
from distdiff.generator.conditioning import Conditioning
from distdiff.generator.kinds import (
    LATENT_CONSISTENCY,
    STABLE_DIFFUSION,
    STABLE_DIFFUSION_3,
    STABLE_DIFFUSION_XL,
    Kind,
    kind_of,
)

DISTILLED_STEPS = 50  # LCMScheduler's own default
T5_TOKENS = 256  # the most tokens for Stable Diffusion 3's third text encoder; the pipeline's own default


class Family(ABC):
    """One pipeline, with the operations that depend on its kind."""

    kind: ClassVar[Kind]
    network_name: ClassVar[str] = "unet"
    text_encoders: ClassVar[tuple[str, ...]] = ("text_encoder",)
    decodes_in_float32: ClassVar[bool] = False  # True if the pipeline's autoencoder overflows in float16

    def __init__(self, pipeline: DiffusionPipeline, cfg_scale: float) -> None:
        self.pipeline = pipeline
        self.cfg_scale = cfg_scale

    @property
    def network(self) -> nn.Module:
        return getattr(self.pipeline, self.network_name)

    @property
    def classifier_free(self) -> bool:
        """Whether the network is called both with and without the prompt.

        As in diffusers, this is the case if `cfg_scale` is above 1.
        """
        return self.cfg_scale > 1

    @property
    def size_multiple(self) -> int:
        """The sides of images, in pixels, must be multiples of this number."""
        return self.pipeline.vae_scale_factor

    def tokenizers(self) -> list[tuple[PreTrainedTokenizerBase, int]]:
        """The tokenizer of each text encoder, with the most tokens that the pipeline gives to the encoder."""
        found = []
        for name in self.text_encoders:
            tokenizer = getattr(self.pipeline, name.replace("text_encoder", "tokenizer"), None)
            if tokenizer is not None and getattr(self.pipeline, name, None) is not None:
                found.append((tokenizer, self._token_limit(name, tokenizer)))
        return found

    def _token_limit(self, encoder: str, tokenizer: PreTrainedTokenizerBase) -> int:
        return tokenizer.model_max_length

    def as_tokenized(self, prompt: str, tokenizer: PreTrainedTokenizerBase) -> str:
        """The prompt as the pipeline passes it to a tokenizer: a learned word of several vectors becomes several words."""
        convert = getattr(self.pipeline, "maybe_convert_prompt", None)
        return prompt if convert is None else convert(prompt, tokenizer)

    @abstractmethod
    def embed(self, prompts: list[str], device: torch.device) -> Conditioning:
        """One conditioning for each prompt."""

    @abstractmethod
    def embed_negative(self, prompt: str, device: torch.device) -> Conditioning:
        """The negative conditioning for classifier-free guidance; an empty `prompt` gives the pipeline's default."""

    def check_strength(self, num_steps: int, strength: float, scheduler_config: Mapping[str, Any]) -> None:
        """Raises `UserError` if the schedule has fewer than `num_steps` steps at `strength`.

        Only latent consistency models have a schedule whose length depends on the strength.
        """
        return None

    @abstractmethod
    def output(self, latents: torch.Tensor, timestep: torch.Tensor, condition: Conditioning) -> torch.Tensor:
        """The network's output at z_t (B, C, h, w)."""

    def set_timesteps(
        self, scheduler: SchedulerMixin, num_steps: int, strength: float, resolution: int, device: torch.device
    ) -> None:
        """Sets the full schedule of `scheduler`; raises `UserError` if its schedule cannot have `num_steps` steps."""
        try:
            scheduler.set_timesteps(num_steps, device=device)
        except ValueError as error:
            raise UserError(f"generator.num_steps={num_steps} is not allowed: {error}") from None


class StableDiffusion(Family):
    """Stable Diffusion 1.x and 2.x and their distillations (Turbo, and LCM with the guidance scale as a network input)."""

    kind = STABLE_DIFFUSION

    def __init__(self, pipeline: DiffusionPipeline, cfg_scale: float) -> None:
        super().__init__(pipeline, cfg_scale)
        self.scale_embedding = self._scale_embedding()

    @property
    def classifier_free(self) -> bool:
        return super().classifier_free and self.scale_embedding is None

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
        return None if self.scale_embedding is None else self.scale_embedding.to(latents).expand(len(latents), -1)


class StableDiffusionXL(StableDiffusion):
    """Stable Diffusion XL: two text encoders, a pooled embedding, and the image's sizes as extra conditions."""

    kind = STABLE_DIFFUSION_XL
    text_encoders = ("text_encoder", "text_encoder_2")
    decodes_in_float32 = True

    def embed(self, prompts, device):
        tokens, _, pooled, _ = self.pipeline.encode_prompt(prompts, device=device, do_classifier_free_guidance=False)
        return Conditioning(tokens, pooled)

    def embed_negative(self, prompt, device):
        negative = {"negative_prompt": [prompt]} if prompt else {}
        _, tokens, _, pooled = self.pipeline.encode_prompt([""], device=device, **negative)
        return Conditioning(tokens, pooled)

    def _added(self, latents, condition):
        height, width = (side * self.pipeline.vae_scale_factor for side in latents.shape[-2:])
        sizes = latents.new_tensor([height, width, 0, 0, height, width])  # original size, crop's corner, target size
        return {"text_embeds": condition.pooled, "time_ids": sizes.expand(len(latents), -1)}


class LatentConsistency(StableDiffusion):
    """Latent consistency models (Luo et al., 2023).

    All steps run at any strength; the strength sets only the noise level of the first step.
    """

    kind = LATENT_CONSISTENCY

    @property
    def classifier_free(self) -> bool:
        return False

    def check_strength(self, num_steps, strength, scheduler_config):
        steps = int(scheduler_config.get("original_inference_steps", DISTILLED_STEPS) * strength)
        if num_steps > steps:
            raise UserError(
                f"generator.num_steps={num_steps} is not allowed: at strength {strength:g} this latent consistency model has "
                f"{steps} steps, so a number from 1 to {steps}"
            )

    def set_timesteps(self, scheduler, num_steps, strength, resolution, device):
        self.check_strength(num_steps, strength, scheduler.config)
        scheduler.set_timesteps(num_steps, device=device, strength=strength)


class StableDiffusion3(Family):
    """Stable Diffusion 3.x: a transformer trained by flow matching, with three text encoders (T5 can be left out)."""

    kind = STABLE_DIFFUSION_3
    network_name = "transformer"
    text_encoders = ("text_encoder", "text_encoder_2", "text_encoder_3")

    @property
    def size_multiple(self) -> int:
        return self.pipeline.vae_scale_factor * self.network.config.patch_size

    def embed(self, prompts, device):
        encode = self.pipeline.encode_prompt
        tokens, _, pooled, _ = encode(
            prompts, None, None, device=device, do_classifier_free_guidance=False, max_sequence_length=T5_TOKENS
        )
        return Conditioning(tokens, pooled)

    def embed_negative(self, prompt, device):
        negative = {"negative_prompt": [prompt]} if prompt else {}
        _, tokens, _, pooled = self.pipeline.encode_prompt(
            [""], None, None, device=device, max_sequence_length=T5_TOKENS, **negative
        )
        return Conditioning(tokens, pooled)

    def _token_limit(self, encoder, tokenizer):
        # The pipeline gives both CLIP encoders as many tokens as the first one takes.
        return T5_TOKENS if encoder == "text_encoder_3" else self.pipeline.tokenizer_max_length

    def output(self, latents, timestep, condition):
        return self.network(
            hidden_states=latents,
            timestep=timestep.expand(len(latents)),
            encoder_hidden_states=condition.tokens,
            pooled_projections=condition.pooled,
            return_dict=False,
        )[0]

    def set_timesteps(self, scheduler, num_steps, strength, resolution, device):
        options = {}
        if scheduler.config.use_dynamic_shifting:
            tokens = (resolution // self.size_multiple) ** 2
            names = ("base_image_seq_len", "max_image_seq_len", "base_shift", "max_shift")
            options["mu"] = calculate_shift(tokens, *(scheduler.config[name] for name in names))
        scheduler.set_timesteps(num_steps, device=device, **options)


FAMILIES: tuple[type[Family], ...] = (StableDiffusion, StableDiffusionXL, LatentConsistency, StableDiffusion3)


def family_of(pipeline: DiffusionPipeline, cfg_scale: float) -> Family:
    """The family of `pipeline`; raises `UserError` for an unsupported kind of pipeline."""
    kind = kind_of(type(pipeline).__name__, type(pipeline).__name__)
    return next(family for family in FAMILIES if family.kind is kind)(pipeline, cfg_scale)
