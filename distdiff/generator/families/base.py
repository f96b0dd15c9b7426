"""What differs between the kinds of pipelines: how prompts are embedded and how the denoising network is called.

To add a kind, add its `Kind` to `kinds.py`, and beside this file one with a subclass of `Family`, which `known.py` lists.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, NamedTuple

import torch
from diffusers import DiffusionPipeline, SchedulerMixin
from torch import nn
from transformers import CLIPTextModel, CLIPTextModelWithProjection, PreTrainedTokenizerBase

from distdiff.errors import UserError
from distdiff.generator.conditioning import Conditioning
from distdiff.generator.families.autoencoder import autoencoder_fault
from distdiff.generator.kinds import Kind
from distdiff.generator.parts import channels_fault

UNLIMITED = 10**12  # tokens; a tokenizer whose limit is not known says more than this


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
            or autoencoder_fault(self.pipeline.vae)
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
