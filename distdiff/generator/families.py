"""How each kind of pipeline reads prompts and how its denoising network is called: all that differs between them.

To add a kind: its `Kind` in `kinds.py`, and here a subclass of `Family` that names it.
"""

from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from diffusers import DiffusionPipeline, LCMScheduler, SchedulerMixin
from diffusers.pipelines.latent_consistency_models.pipeline_latent_consistency_img2img import (
    LatentConsistencyModelImg2ImgPipeline,
)
from diffusers.pipelines.stable_diffusion_3.pipeline_stable_diffusion_3 import calculate_shift
from torch import nn

from distdiff.errors import UserError
from distdiff.generator.conditioning import Conditioning, Prompts
from distdiff.generator.kinds import (
    LATENT_CONSISTENCY,
    STABLE_DIFFUSION,
    STABLE_DIFFUSION_3,
    STABLE_DIFFUSION_XL,
    Kind,
    kind_of,
)


class Family(ABC):
    """One pipeline, seen through what its kind does in its own way."""

    kind: ClassVar[Kind]
    network_name: ClassVar[str] = "unet"
    text_encoders: ClassVar[tuple[str, ...]] = ("text_encoder",)
    decodes_in_float32: ClassVar[bool] = False  # where its autoencoder overflows in float16

    def __init__(self, pipeline: DiffusionPipeline, cfg_scale: float) -> None:
        self.pipeline = pipeline
        self.cfg_scale = cfg_scale

    @property
    def network(self) -> nn.Module:
        return getattr(self.pipeline, self.network_name)

    @property
    def classifier_free(self) -> bool:
        """Is the network called twice, with and without the prompt? As in diffusers: for a scale above 1."""
        return self.cfg_scale > 1

    @property
    def size_multiple(self) -> int:
        """Images' sides must be a multiple of this."""
        return self.pipeline.vae_scale_factor

    @abstractmethod
    def embed(self, prompts: list[str], negative_prompt: str, device: torch.device) -> Prompts:
        """Prompts to what the network takes; an empty `negative_prompt` is what the pipeline does without one."""

    @abstractmethod
    def output(self, latents: torch.Tensor, timestep: torch.Tensor, condition: Conditioning) -> torch.Tensor:
        """The network's output at z_t (B, C, h, w)."""

    def set_timesteps(
        self, scheduler: SchedulerMixin, num_steps: int, strength: float, resolution: int, device: torch.device
    ) -> None:
        """Sets the full schedule; raises `UserError` where the scheduler has no such."""
        try:
            scheduler.set_timesteps(num_steps, device=device)
        except ValueError as error:
            raise UserError(f"generator.num_steps={num_steps} is not allowed: {error}") from None


class StableDiffusion(Family):
    """Stable Diffusion 1.x and 2.x, and their distillations (Turbo; LCM with its scale as an input of the network)."""

    kind = STABLE_DIFFUSION

    def __init__(self, pipeline: DiffusionPipeline, cfg_scale: float) -> None:
        super().__init__(pipeline, cfg_scale)
        self.scale_embedding = self._scale_embedding()

    @property
    def classifier_free(self) -> bool:
        return super().classifier_free and self.scale_embedding is None

    def embed(self, prompts, negative_prompt, device):
        positive, negative = self.pipeline.encode_prompt(
            prompts, device, 1, self.classifier_free, self._negative(prompts, negative_prompt)
        )
        return Prompts(Conditioning(positive), Conditioning(negative[:1]) if self.classifier_free else None)

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

    def _negative(self, prompts: list[str], negative_prompt: str) -> list[str] | None:
        return [negative_prompt] * len(prompts) if negative_prompt else None

    def _scale_embedding(self) -> torch.Tensor | None:
        """The guidance scale as a distilled network takes it (Meng et al., 2023), (1, width), or None."""
        width = self.network.config.time_cond_proj_dim
        if width is None:
            return None
        scale = torch.tensor([self.cfg_scale - 1.0])
        return LatentConsistencyModelImg2ImgPipeline.get_guidance_scale_embedding(None, scale, embedding_dim=width)

    def _scale_for(self, latents: torch.Tensor) -> torch.Tensor | None:
        return None if self.scale_embedding is None else self.scale_embedding.to(latents).expand(len(latents), -1)


class StableDiffusionXL(StableDiffusion):
    """Stable Diffusion XL: two text encoders, a pooled embedding, and the image's sizes as added conditions."""

    kind = STABLE_DIFFUSION_XL
    text_encoders = ("text_encoder", "text_encoder_2")
    decodes_in_float32 = True

    def embed(self, prompts, negative_prompt, device):
        positive, negative, pooled, negative_pooled = self.pipeline.encode_prompt(
            prompts,
            device=device,
            do_classifier_free_guidance=self.classifier_free,
            negative_prompt=self._negative(prompts, negative_prompt),
        )
        return _pooled_prompts(positive, pooled, negative, negative_pooled, self.classifier_free)

    def _added(self, latents, condition):
        height, width = (side * self.pipeline.vae_scale_factor for side in latents.shape[-2:])
        sizes = latents.new_tensor([height, width, 0, 0, height, width])  # original size, crop's corner, target size
        return {"text_embeds": condition.pooled, "time_ids": sizes.expand(len(latents), -1)}


class LatentConsistency(StableDiffusion):
    """Latent consistency models (Luo et al., 2023): the schedule's steps all run, beginning at the strength."""

    kind = LATENT_CONSISTENCY

    @property
    def classifier_free(self) -> bool:
        return False

    def set_timesteps(self, scheduler, num_steps, strength, resolution, device):
        trained = scheduler.config.original_inference_steps
        if num_steps > int(trained * strength):
            raise UserError(
                f"generator.num_steps={num_steps} is not allowed: at strength {strength:g} this latent consistency "
                f"model has {int(trained * strength)} steps, so a number from 1 to {int(trained * strength)}"
            )
        scheduler.set_timesteps(num_steps, device=device, strength=strength)


class StableDiffusion3(Family):
    """Stable Diffusion 3.x: a transformer trained by flow matching, three text encoders, of which T5 may be left out."""

    kind = STABLE_DIFFUSION_3
    network_name = "transformer"
    text_encoders = ("text_encoder", "text_encoder_2", "text_encoder_3")

    @property
    def size_multiple(self) -> int:
        return self.pipeline.vae_scale_factor * self.network.config.patch_size

    def embed(self, prompts, negative_prompt, device):
        positive, negative, pooled, negative_pooled = self.pipeline.encode_prompt(
            prompts,
            None,
            None,
            device=device,
            do_classifier_free_guidance=self.classifier_free,
            negative_prompt=[negative_prompt] * len(prompts) if negative_prompt else None,
        )
        return _pooled_prompts(positive, pooled, negative, negative_pooled, self.classifier_free)

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
    """The family that `pipeline` belongs to; raises `UserError` for one that is not supported."""
    kind = kind_of(type(pipeline).__name__, type(pipeline).__name__)
    return next(family for family in FAMILIES if family.kind is kind)(pipeline, cfg_scale)


def _pooled_prompts(positive, pooled, negative, negative_pooled, classifier_free: bool) -> Prompts:
    return Prompts(
        Conditioning(positive, pooled), Conditioning(negative[:1], negative_pooled[:1]) if classifier_free else None
    )
