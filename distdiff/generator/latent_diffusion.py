"""A pretrained latent diffusion pipeline, reduced to the operations that guided img2img needs."""

import functools
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from diffusers import AutoencoderTiny, DiffusionPipeline, SchedulerMixin
from torch import nn

from distdiff.constants import constant
from distdiff.errors import UserError
from distdiff.generator.beginnings import Beginnings
from distdiff.generator.conditioning import Conditioning, Prompts
from distdiff.generator.denoiser import Denoiser
from distdiff.generator.families.base import Family
from distdiff.generator.families.known import family_of
from distdiff.generator.kinds import AUTO
from distdiff.generator.prompted import PromptedNetwork
from distdiff.generator.schedulers import build_scheduler, odd_schedule, resolve_scheduler
from distdiff.generator.tokens import check_negative_prompt, check_prompts, check_words

ENCODE_PIXELS = 16 * 256**2  # the most in a batch; takes 2.7 GB in Stable Diffusion's autoencoder in float32
FAR = 2  # a resolution that differs by this factor from the one that a network is made for is said
ENCODE_BATCH, EMBED_BATCH = 16, 16


@dataclass(frozen=True)
class Posterior:
    """The autoencoder's Gaussian posterior, with mean and std (B, C, h, w) in the scale of the denoising network."""

    mean: torch.Tensor
    std: torch.Tensor

    def sample(self, noise: torch.Tensor) -> torch.Tensor:
        return self.mean + self.std * noise

    def select(self, positions: torch.Tensor | slice) -> "Posterior":
        return Posterior(self.mean[positions], self.std[positions])

    def cpu(self) -> "Posterior":
        return Posterior(self.mean.cpu(), self.std.cpu())


class LatentDiffusion(nn.Module):
    """The frozen parts of a pipeline: autoencoder, denoising network, text encoders and noise schedule.

    Networks run in the pipeline's precision. Latents outside the networks are float64 for a float64 pipeline and
    float32 for all others, so that small steps and small gradients are not lost in half precision. The text encoders
    are on the device only while prompts are embedded.

    `beginnings` keeps what several samplings have in common; None, which is the default, keeps nothing.
    """

    beginnings: Beginnings | None = None

    def __init__(
        self,
        pipeline: DiffusionPipeline,
        num_steps: int,
        cfg_scale: float,
        resolution: int,
        scheduler: str = AUTO,
        negative_prompt: str = "",
        guidance_decoder: AutoencoderTiny | None = None,
        gradient_checkpointing: bool = False,
        learned_words: Mapping[str, Sequence[str]] | None = None,
        model: str = "",
    ) -> None:
        """Raises `UserError` for an unsupported pipeline or an unsuitable scheduler, resolution or negative prompt.

        The scheduler must fit the pipeline's kind, and the resolution must be a multiple of `Family.size_multiple`. A
        negative prompt requires classifier-free guidance. `learned_words` has the words that each textual inversion
        added. `model` is the pipeline's name in messages.
        """
        super().__init__()
        self.family: Family = family_of(pipeline, cfg_scale)
        named = f"generator.model={model or pipeline.name_or_path or type(pipeline).__name__} is not allowed"
        if reason := self.family.misfit():
            raise UserError(f"{named}: {reason}")
        self.vae: nn.Module = pipeline.vae
        self.network = self.family.network
        self.guidance_decoder = guidance_decoder
        self.scheduler_config = dict(pipeline.scheduler.config) | {"_class_name": type(pipeline.scheduler).__name__}
        self.scheduler_name = resolve_scheduler(scheduler, self.family.kind, self.scheduler_config)
        if reason := odd_schedule(build_scheduler(self.scheduler_name, self.scheduler_config)):
            raise UserError(f"{named}: scheduler/scheduler_config.json: {reason}")
        self.num_steps = num_steps
        self.cfg_scale = cfg_scale
        self.resolution = resolution
        self.negative_prompt = negative_prompt
        self.learned_words = learned_words or {}
        if resolution % self.family.size_multiple:
            raise UserError(
                f"generator.resolution={resolution} is not allowed: for this model, a multiple of {self.family.size_multiple}"
            )
        if negative_prompt and not self.family.classifier_free:
            raise UserError(
                f"generator.negative_prompt={negative_prompt!r} is not allowed: without classifier-free guidance "
                "(generator.cfg_scale above 1, and no consistency model) it would change nothing"
            )
        if self.family.decodes_in_float32 and self.dtype == torch.float16 and self.vae.config.force_upcast:
            self.vae.float()
        if gradient_checkpointing:
            self.checkpoint_gradients(True)
        for part in (self, *self._text_encoders()):
            part.eval().requires_grad_(False)
        for encoder in self._text_encoders():  # random weights are made on the device
            encoder.to("cpu")

    @property
    def dtype(self) -> torch.dtype:
        """The denoising network's precision."""
        return _dtype(self.network)

    @property
    def latent_dtype(self) -> torch.dtype:
        return torch.float64 if self.dtype == torch.float64 else torch.float32

    @property
    def device(self) -> torch.device:
        return next(self.network.parameters()).device

    def check_resolution(self) -> list[str]:
        """A sentence if `resolution` is far from that of the images which the denoising network is made for; else none.

        Nothing is known, and said, of a network whose configuration has no single `sample_size`.
        """
        side = getattr(self.network.config, "sample_size", None)
        own = side * self.family.pipeline.vae_scale_factor if isinstance(side, int) else 0
        if not own or 1 / FAR < self.resolution / own < FAR:
            return []
        return [
            f"generator.resolution={self.resolution}: this model is made for images of {own} pixels and may draw badly at so "
            f"different a size; generator.resolution={own} is its own"
        ]

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """(C, h, w) of the latents at the generator's resolution."""
        side = self.resolution // self.family.pipeline.vae_scale_factor
        return self.vae.config.latent_channels, side, side

    @property
    def counting(self) -> str:
        """The rule by which img2img counts its steps (`Kind.counting`)."""
        return self.family.kind.counting

    def check_strength(self, strength: float) -> None:
        """Raises `UserError` if the noise schedule does not have `num_steps` steps at `strength`."""
        self._scheduler(strength)

    def checkpoint_gradients(self, on: bool) -> None:
        """Turns gradient checkpointing on or off. It takes effect only in guided steps, which compute gradients."""
        for part in (self.vae, self.network, self.guidance_decoder):
            if part is not None and on:
                part.enable_gradient_checkpointing()
            elif part is not None:
                part.disable_gradient_checkpointing()

    @property
    def encode_batch(self) -> int:
        """How many images the autoencoder encodes at once where no gradient is needed."""
        return max(1, min(ENCODE_BATCH, ENCODE_PIXELS // self.resolution**2))

    @cached_property
    def empty_prompt(self) -> Conditioning:
        """The conditioning of the prompt that says nothing."""
        return self.embed([""]).positive

    @torch.no_grad()
    def encode(self, images: torch.Tensor) -> Posterior:
        """The autoencoder's posterior of images (B, 3, H, W) in [0, 1]."""
        return self.posterior(images)

    def posterior(self, images: torch.Tensor) -> Posterior:
        """The same, differentiable in the images."""
        posterior = self.vae.encode(images.to(self.device, _dtype(self.vae)) * 2 - 1).latent_dist
        mean, std = posterior.mean.to(self.latent_dtype), posterior.std.to(self.latent_dtype)
        scale, shift = self._scale_and_shift(mean)
        return Posterior((mean - shift) * scale, std * scale)

    def encode_batches(self, images: Iterable[torch.Tensor]) -> Iterator[Posterior]:
        """Yields the posteriors of a stream of images (3, H, W) in [0, 1], one batch at a time, on the CPU."""
        remaining = iter(images)
        while batch := list(itertools.islice(remaining, self.encode_batch)):
            yield self.encode(torch.stack(batch)).cpu()

    def encode_all(self, images: Iterable[torch.Tensor]) -> Posterior:
        """The posterior of a stream of images (3, H, W) in [0, 1], on the CPU.

        Only one batch of images is in memory at a time.
        """
        parts = list(self.encode_batches(images))
        return Posterior(torch.cat([part.mean for part in parts]), torch.cat([part.std for part in parts]))

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """The images (B, 3, H, W) of latents, in [0, 1] up to overshoot. They are not clipped, so gradients pass."""
        scale, shift = self._scale_and_shift(latents)
        decoded = self.vae.decode((latents / scale + shift).to(_dtype(self.vae)), return_dict=False)[0]
        return decoded.to(latents.dtype) / 2 + 0.5

    def decode_for_guidance(self, latents: torch.Tensor) -> torch.Tensor:
        """The images that `decode` returns, but made by the small `guidance_decoder` if one is configured."""
        if self.guidance_decoder is None:
            return self.decode(latents)
        decoded = self.guidance_decoder.decode(latents.to(_dtype(self.guidance_decoder)), return_dict=False)[0]
        return decoded.to(latents.dtype) / 2 + 0.5

    def _scale_and_shift(self, like: torch.Tensor) -> tuple[torch.Tensor | float, torch.Tensor | float]:
        """(scale, shift), such that the generator's latents are (the autoencoder's latents − shift) · scale."""
        config = self.vae.config
        mean, std = getattr(config, "latents_mean", None), getattr(config, "latents_std", None)
        if mean is not None and std is not None:
            std, mean = (constant(tuple(of), like.device, like.dtype).view(1, -1, 1, 1) for of in (std, mean))
            return config.scaling_factor / std, mean
        return config.scaling_factor, getattr(config, "shift_factor", None) or 0.0

    def check_prompts(
        self, of_classes: Sequence[Sequence[str]], class_names: Sequence[str], key: str = "dataset.prompt_template"
    ) -> list[str]:
        """Sentences about prompts that the tokenizers do not read as they are written (`generator/tokens.py`).

        `of_classes` has the prompts of each class, which the configuration key `key` sets. Raises `UserError` if two
        classes have the same prompt after the tokenizers cut it.
        """
        negative = self.negative_prompt if self.family.classifier_free else ""
        return [
            *check_prompts(self.family, of_classes, class_names, key),
            *check_negative_prompt(self.family, negative),
            *check_words(self.family, [one for own in of_classes for one in own], negative, self.learned_words),
        ]

    @torch.no_grad()
    def embed(self, prompts: list[str]) -> Prompts:
        """Embeds `prompts` in small batches; also embeds the negative prompt if classifier-free guidance is on."""
        encoders = self._text_encoders()
        for encoder in encoders:
            encoder.to(self.device)
        try:
            parts = [
                self.family.embed(prompts[start : start + EMBED_BATCH], self.device)
                for start in range(0, len(prompts), EMBED_BATCH)
            ]
            negative = None
            if self.family.classifier_free:
                negative = self.family.embed_negative(self.negative_prompt, self.device)
            return Prompts(functools.reduce(Conditioning.followed_by, parts), negative).to(self.dtype)
        finally:
            for encoder in encoders:
                encoder.to("cpu")

    def _text_encoders(self) -> list[nn.Module]:
        """The text encoders; they are not submodules, so that moving this module to a device does not move them."""
        encoders = (getattr(self.family.pipeline, name) for name in self.family.text_encoders)
        return [encoder for encoder in encoders if encoder is not None]

    def denoiser(self, prompts: Prompts, strength: float = 1.0, generators: Sequence[torch.Generator] = ()) -> Denoiser:
        """The denoiser of a batch.

        `prompts` has one prompt for each sample. `generators` has one generator for each sample, and is used only by
        schedulers that add noise.
        """
        scheduler = self._scheduler(strength)
        if self.latent_dtype == torch.float64:
            for name in ("alphas_cumprod", "final_alpha_cumprod", "sigmas"):
                if hasattr(scheduler, name):
                    setattr(scheduler, name, getattr(scheduler, name).double())
        return Denoiser(self._guided_model(prompts.to(self.device)), self.decode_for_guidance, scheduler, generators)

    def _scheduler(self, strength: float) -> SchedulerMixin:
        """A scheduler whose steps are set. Its tables and timesteps are on the CPU (see `Denoiser`)."""
        scheduler = build_scheduler(self.scheduler_name, self.scheduler_config)
        self.family.set_timesteps(scheduler, self.num_steps, strength, self.resolution)
        return scheduler

    def _guided_model(self, prompts: Prompts) -> PromptedNetwork:
        return PromptedNetwork(self.family, self.dtype, self.cfg_scale, prompts)


def _dtype(part: nn.Module) -> torch.dtype:
    """The precision of a part's first parameter; the parts that we use have one precision.

    `dtype` and `device` of diffusers' classes go through all modules of a part.
    """
    return next(part.parameters()).dtype
