"""What differs between the kinds of pipelines: how prompts are embedded and how the denoising network is called.

To add a kind, add its `Kind` to `kinds.py`, and here a subclass of `Family` that names it.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, NamedTuple

import torch
from diffusers import AsymmetricAutoencoderKL, AutoencoderKL, DiffusionPipeline, SchedulerMixin
from diffusers.pipelines.latent_consistency_models.pipeline_latent_consistency_img2img import (
    LatentConsistencyModelImg2ImgPipeline,
)
from diffusers.pipelines.stable_diffusion_3.pipeline_stable_diffusion_3 import calculate_shift
from torch import nn
from transformers import CLIPTextModel, CLIPTextModelWithProjection, PreTrainedTokenizerBase

from distdiff.constants import constant
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
from distdiff.generator.parts import channels_fault

UNLIMITED = 10**12  # tokens; a tokenizer whose limit is not known says more than this
DISTILLED_STEPS = 50  # LCMScheduler's own default
T5_TOKENS = 256  # the most tokens for Stable Diffusion 3's third text encoder; the pipeline's own default


class Reader(NamedTuple):
    """A tokenizer, the most tokens that the pipeline gives to its text encoder, and how many tokens the encoder knows."""

    tokenizer: PreTrainedTokenizerBase
    limit: int
    known: int


class Family(ABC):
    """One pipeline, with the operations that depend on its kind."""

    kind: ClassVar[Kind]
    network_name: ClassVar[str] = "unet"
    text_encoders: ClassVar[tuple[str, ...]] = ("text_encoder",)
    optional_encoders: ClassVar[tuple[str, ...]] = ()
    pooling_encoders: ClassVar[tuple[str, ...]] = ()  # those whose pooled text the network takes
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

    def tokenizers(self) -> list[Reader]:
        """What reads prompts for each text encoder."""
        found = []
        for name in self.text_encoders:
            encoder = getattr(self.pipeline, name, None)
            tokenizer = getattr(self.pipeline, name.replace("text_encoder", "tokenizer"), None)
            if tokenizer is not None and encoder is not None:
                known = encoder.get_input_embeddings().num_embeddings
                found.append(Reader(tokenizer, self._token_limit(name, tokenizer), known))
        return found

    def _token_limit(self, encoder: str, tokenizer: PreTrainedTokenizerBase) -> int:
        return tokenizer.model_max_length

    def as_tokenized(self, prompt: str, tokenizer: PreTrainedTokenizerBase) -> str:
        """The prompt as the pipeline passes it to a tokenizer: a learned word of several vectors becomes several words."""
        convert = getattr(self.pipeline, "maybe_convert_prompt", None)
        return prompt if convert is None else convert(prompt, tokenizer)

    def misfit(self) -> str | None:
        """The reason if parts of the pipeline do not suit each other, or None."""
        config = self.network.config
        inputs, channels = config.in_channels, self.pipeline.vae.config.latent_channels
        if (
            reason := channels_fault(inputs, channels)
            or self._odd_network(config)
            or _odd_autoencoder(self.pipeline.vae)
        ):
            return reason
        for name in self.text_encoders:
            encoder = getattr(self.pipeline, name, None)
            tokenizer = getattr(self.pipeline, name.replace("text_encoder", "tokenizer"), None)
            if encoder is None or tokenizer is None:
                if name in self.optional_encoders:
                    continue
                return f"its {name} or the tokenizer of it is missing, so it is no whole text-to-image model"
            limit, places = self._token_limit(name, tokenizer), getattr(encoder.config, "max_position_embeddings", None)
            if limit >= UNLIMITED:
                part = name.replace("text_encoder", "tokenizer")
                return f"{part}/tokenizer_config.json does not say how many tokens a prompt may have (model_max_length)"
            if places is not None and limit > places:
                return f"its tokenizer gives {limit:,} tokens, and its {name} takes {places:,}"
            if reason := self._odd_ends(name, encoder, tokenizer):
                return reason
        return next(
            (
                f"its network takes {what} of {takes} numbers, and its text encoders give {given}"
                for what, takes, given in self.widths()
                if takes != given
            ),
            None,
        )

    def _odd_network(self, config: Mapping[str, Any]) -> str | None:
        """What the denoising network takes or gives that text-to-image does not."""
        channels = self.pipeline.vae.config.latent_channels
        if config.out_channels != channels:
            return f"its network gives {config.out_channels} channels, not the autoencoder's {channels}"
        return None

    def _odd_ends(self, name: str, encoder: nn.Module, tokenizer: PreTrainedTokenizerBase) -> str | None:
        """What the special tokens of a tokenizer lack, with which short prompts are filled up and all prompts end."""
        label, known = name.replace("text_encoder", "tokenizer"), encoder.get_input_embeddings().num_embeddings
        if tokenizer.pad_token_id is None:
            return f"its {label} has no pad_token, with which short prompts are filled up"
        for key in ("pad_token", "eos_token", "bos_token"):
            identity = getattr(tokenizer, f"{key}_id", None)
            if identity is not None and identity >= known:
                return f"the {key} of its {label} is number {identity}, and its {name} knows {known} tokens"
        if not isinstance(encoder, CLIPTextModel | CLIPTextModelWithProjection):
            return None
        pools, wanted = isinstance(encoder, CLIPTextModelWithProjection), name in self.pooling_encoders
        if pools != wanted:
            names = (CLIPTextModel.__name__, CLIPTextModelWithProjection.__name__)
            return f"its {name} is a {names[pools]}, and a {self.kind.name} model takes a {names[wanted]}"
        end = encoder.config.eos_token_id
        # The pooled text is what the encoder gives at its last token. Many files say 2, which CLIP's code has an exception for.
        if not isinstance(end, int) or (pools and end not in (2, tokenizer.eos_token_id)):
            return (
                f"eos_token_id={end} of its {name} is not allowed: prompts end with the token {tokenizer.eos_token_id} of its "
                f"{label}"
            )
        return None

    def widths(self) -> Iterator[tuple[str, int, int]]:
        """(what it is, the width that the network takes, the width that the text encoders give)."""
        yield from ()

    def _encoder_config(self, name: str) -> Any:
        return getattr(self.pipeline, name).config

    @abstractmethod
    def embed(self, prompts: list[str], device: torch.device) -> Conditioning:
        """One conditioning for each prompt."""

    @abstractmethod
    def embed_negative(self, prompt: str, device: torch.device) -> Conditioning:
        """The negative conditioning for classifier-free guidance; an empty `prompt` gives the pipeline's default."""

    @abstractmethod
    def output(self, latents: torch.Tensor, timestep: torch.Tensor, condition: Conditioning) -> torch.Tensor:
        """The network's output at z_t (B, C, h, w)."""

    @abstractmethod
    def second_half(self) -> nn.Module:
        """The part of the network that takes the hidden state at its middle, as `hidden_states` or as its first argument."""

    @abstractmethod
    def middle_shape(self, latent_side: int) -> tuple[int, int]:
        """(channels, side) of the hidden state at the network's middle, for square latents."""

    @abstractmethod
    def middle_map(self, hidden: torch.Tensor) -> torch.Tensor:
        """The hidden state (B, C, h, w) as a map of the image, from the form in which the network passes it on."""

    def set_timesteps(self, scheduler: SchedulerMixin, num_steps: int, strength: float, resolution: int) -> None:
        """Sets the full schedule of `scheduler`; raises `UserError` if its schedule cannot have `num_steps` steps."""
        if not chosen(scheduler, num_steps):
            trained = scheduler.config.num_train_timesteps
            fewer = range(min(num_steps - 1, trained), 0, -1)
            most = next((number for number in fewer if chosen(scheduler, number)), None)
            if most is None:
                raise UserError(
                    f"generator.model is not allowed: its scheduler_config.json describes a noise schedule of {trained} steps of "
                    f"which {type(scheduler).__name__} can choose none"
                )
            raise UserError(
                f"generator.num_steps={num_steps} is not allowed: {type(scheduler).__name__} cannot choose {num_steps} "
                f"different ones of the {trained} steps of the model's noise schedule; the next smaller number is {most}"
            )


def chosen(scheduler: SchedulerMixin, num_steps: int) -> bool:
    """Sets the steps of `scheduler`; returns whether they are `num_steps` different steps of the noise schedule.

    For a number that is too large, some schedulers of diffusers raise an error. Others repeat steps, or choose steps
    that the noise schedule does not have.
    """
    try:
        scheduler.set_timesteps(num_steps)
    except (ValueError, IndexError):
        return False
    steps = scheduler.timesteps
    falls = bool((steps[1:] < steps[:-1]).all())
    return len(steps) == num_steps and falls and steps[-1] >= 0 and steps[0] < scheduler.config.num_train_timesteps


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
        yield "text", _text_width(self.network.config), self._encoder_config("text_encoder").hidden_size

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


class StableDiffusionXL(StableDiffusion):
    """Stable Diffusion XL: two text encoders, a pooled embedding, and the image's sizes as extra conditions."""

    kind = STABLE_DIFFUSION_XL
    text_encoders = ("text_encoder", "text_encoder_2")
    pooling_encoders = ("text_encoder_2",)
    added_condition = "text_time"
    decodes_in_float32 = True

    def _odd_network(self, config):
        if reason := super()._odd_network(config):
            return reason
        if config.addition_time_embed_dim is None:
            return "its network has no addition_time_embed_dim, the width of the numbers about sizes"
        return None

    def misfit(self):
        if reason := super().misfit():
            return reason
        first, second = (reader.limit for reader in self.tokenizers())
        return None if first == second else f"its tokenizers give {first} and {second} tokens, not equally many"

    def widths(self):
        config = self.network.config
        encoders = [self._encoder_config(name) for name in self.text_encoders]
        yield "text", _text_width(config), sum(encoder.hidden_size for encoder in encoders)
        # The network's second input holds the pooled text, and six numbers about sizes.
        pooled = config.projection_class_embeddings_input_dim - 6 * config.addition_time_embed_dim
        yield "pooled text", pooled, encoders[1].projection_dim

    def embed(self, prompts, device):
        tokens, _, pooled, _ = self.pipeline.encode_prompt(prompts, device=device, do_classifier_free_guidance=False)
        return Conditioning(tokens, pooled)

    def embed_negative(self, prompt, device):
        negative = {"negative_prompt": [prompt]} if prompt else {}
        _, tokens, _, pooled = self.pipeline.encode_prompt([""], device=device, **negative)
        return Conditioning(tokens, pooled)

    def _added(self, latents, condition):
        height, width = (side * self.pipeline.vae_scale_factor for side in latents.shape[-2:])
        numbers = (height, width, 0, 0, height, width)  # original size, crop's corner, target size
        sizes = constant(numbers, latents.device, latents.dtype)
        return {"text_embeds": condition.pooled, "time_ids": sizes.expand(len(latents), -1)}


class LatentConsistency(StableDiffusion):
    """Latent consistency models (Luo et al., 2023).

    All steps run at any strength; the strength sets only the noise level of the first step.
    """

    kind = LATENT_CONSISTENCY

    def _odd_network(self, config):
        if reason := super()._odd_network(config):
            return reason
        if config.time_cond_proj_dim is None:
            return "its network has no time_cond_proj_dim, so it does not take the guidance scale as this kind of model does"
        return None

    @property
    def classifier_free(self) -> bool:
        return False

    def set_timesteps(self, scheduler, num_steps, strength, resolution):
        steps = int(scheduler.config.get("original_inference_steps", DISTILLED_STEPS) * strength)
        if num_steps > steps:
            raise UserError(
                f"generator.num_steps={num_steps} is not allowed: at strength {strength:g} this latent consistency model has "
                f"{steps} steps, so a number from 1 to {steps}"
            )
        scheduler.set_timesteps(num_steps, strength=strength)


class StableDiffusion3(Family):
    """Stable Diffusion 3.x: a transformer trained by flow matching, with three text encoders (T5 can be left out)."""

    kind = STABLE_DIFFUSION_3
    network_name = "transformer"
    text_encoders = ("text_encoder", "text_encoder_2", "text_encoder_3")
    pooling_encoders = ("text_encoder", "text_encoder_2")
    optional_encoders = ("text_encoder_3",)

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

    def widths(self):
        config = self.network.config
        both = [self._encoder_config(name) for name in self.text_encoders[:2]]
        yield "pooled text", config.pooled_projection_dim, sum(encoder.projection_dim for encoder in both)
        side_by_side = sum(encoder.hidden_size for encoder in both)  # filled up with zeros to the width of T5
        third = getattr(self.pipeline, "text_encoder_3", None)
        yield (
            "text",
            config.joint_attention_dim,
            max(side_by_side, config.joint_attention_dim if third is None else third.config.d_model),
        )

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

    def second_half(self):
        blocks = self.network.transformer_blocks
        return blocks[len(blocks) // 2]

    def middle_shape(self, latent_side):
        return self.network.inner_dim, latent_side // self.network.config.patch_size

    def middle_map(self, hidden):
        side = math.isqrt(hidden.shape[1])  # the image's tokens, row by row
        return hidden.transpose(1, 2).unflatten(2, (side, side))

    def set_timesteps(self, scheduler, num_steps, strength, resolution):
        options = {}
        if scheduler.config.use_dynamic_shifting:
            tokens = (resolution // self.size_multiple) ** 2
            names = ("base_image_seq_len", "max_image_seq_len", "base_shift", "max_shift")
            options["mu"] = calculate_shift(tokens, *(scheduler.config[name] for name in names))
        scheduler.set_timesteps(num_steps, **options)


def _text_width(config: Mapping[str, Any]) -> int | None:
    """The width of the text that a UNet takes; some UNets project it first."""
    width = config.encoder_hid_dim or config.cross_attention_dim
    return width if isinstance(width, int) else next(iter(width))


def _odd_autoencoder(vae: nn.Module) -> str | None:
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


FAMILIES: tuple[type[Family], ...] = (StableDiffusion, StableDiffusionXL, LatentConsistency, StableDiffusion3)


def family_of(pipeline: DiffusionPipeline, cfg_scale: float) -> Family:
    """The family of `pipeline`; raises `UserError` for an unsupported kind of pipeline."""
    kind = kind_of(type(pipeline).__name__, type(pipeline).__name__)
    return next(family for family in FAMILIES if family.kind is kind)(pipeline, cfg_scale)
