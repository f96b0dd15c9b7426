"""An encoder that needs no model besides the generator: φ is what its denoising network holds at its middle."""

import weakref
from collections.abc import Callable
from typing import Annotated, Any

import torch
from torch import nn
from torch.nn import functional as F

from distdiff.classification.preprocessing import Preprocessing
from distdiff.encoders.base import Encoder
from distdiff.encoders.source import EncoderContext, GeneratorInUse, PretrainedSource
from distdiff.errors import UserError
from distdiff.generator.latent_diffusion import LatentDiffusion
from distdiff.generator.middle import hidden_state, noise_level_of
from distdiff.keys import Limits

NAME = "generator"  # of the option
# The generator's keys that can change its features. Some distilled networks take the guidance scale as an input, and which of
# them do is not known before they are loaded.
KEYS = ("model", "checkpoint_config", "variant", "use_t5", "lora", "dtype", "resolution", "cfg_scale")
NOISE_SEED = 0  # every image gets the same noise, so that φ is a function of the image

NoiseLevel = Annotated[float, Limits(at_least=0, at_most=1)]
PoolSize = Annotated[int, Limits(at_least=1, at_most=64)]


class GeneratorEncoder(Encoder):
    """φ(x): the hidden state at the middle of the denoising network for the image's latents at a noise level.

    The network gets the mean of the autoencoder's posterior, with noise that is the same for every image, and an empty prompt.
    Its hidden state, of a UNet the h-space of Kwon et al. (ICLR 2023, arXiv 2210.10960), is averaged over the cells of a grid of
    `pool_size` x `pool_size` (or of as many as it has, if these are fewer), so that D = C · pool_size². The network computes in
    the generator's precision, whatever that of the images is.

    φ keeps no generator in memory: one that has given place to another is loaded again when it is needed.
    """

    def __init__(self, load: Callable[[], LatentDiffusion], noise_level: float, pool_size: int) -> None:
        """`load()` returns the generator on the device where it is to compute, loaded anew only if it is not in memory."""
        generator = load()
        channels, side = generator.family.middle_shape(generator.latent_shape[-1])
        cells = min(pool_size, side)
        in_range = Preprocessing(generator.resolution, mean=(0.5,) * 3, std=(0.5,) * 3)  # [−1, 1], as the autoencoder's
        super().__init__(nn.Identity(), in_range, channels * cells**2)
        self.noise_level = noise_level
        self.pool_size = cells
        self._load = load
        self._place = generator.device
        self._loaded = weakref.ref(generator)
        self._signal, self._deviation, self._timestep = noise_level_of(generator, noise_level)
        self._noise = torch.randn(generator.latent_shape, generator=torch.Generator().manual_seed(NOISE_SEED))

    @property
    def generator(self) -> LatentDiffusion:
        """The generator, which Lightning moves to the CPU after each prediction, on the device where it was loaded."""
        generator = self._loaded()
        if generator is None or generator.device != self._place:
            generator = self._load()
            self._place, self._loaded = generator.device, weakref.ref(generator)
        return generator

    @property
    def device(self) -> torch.device:
        return self.generator.device

    def extract(self, inputs: torch.Tensor) -> torch.Tensor:
        generator = self.generator
        if torch.is_grad_enabled() and inputs.requires_grad:
            return self._hidden(generator, inputs)
        return torch.cat([self._hidden(generator, some) for some in inputs.split(generator.encode_batch)])

    def _hidden(self, generator: LatentDiffusion, inputs: torch.Tensor) -> torch.Tensor:
        latents = generator.posterior((inputs / 2 + 0.5).to(generator.device)).mean
        self._noise, self._timestep = self._noise.to(latents), self._timestep.to(latents.device)  # kept there
        noisy = self._signal * latents + self._deviation * self._noise
        prompts = generator.empty_prompt.to(latents.device).expand(len(inputs))
        hidden = hidden_state(generator, noisy, self._timestep, prompts)
        return F.adaptive_avg_pool2d(hidden.to(inputs), self.pool_size).flatten(1)


class GeneratorFeatures(PretrainedSource):
    """The features of the generator that the `generator` keys choose."""

    def __init__(self, context: EncoderContext, *, noise_level: NoiseLevel, pool_size: PoolSize) -> None:
        self.noise_level = noise_level
        self.pool_size = pool_size
        self._in_use = context.generator

    @property
    def in_use(self) -> GeneratorInUse:
        """Raises `UserError` where there is no generator."""
        if self._in_use is None:
            raise UserError(
                "encoder=generator is not allowed here: it needs a generator; in Python, "
                "distdiff.load_encoder(kind='generator', generator=generator)"
            )
        return self._in_use

    def ingredients(self) -> dict[str, Any]:
        identity = self.in_use.identity()
        return {
            "name": NAME,
            "noise_level": self.noise_level,
            "pool_size": self.pool_size,
            "generator": {key: identity[key] for key in KEYS},
        }

    def load(self) -> GeneratorEncoder:
        return GeneratorEncoder(self.in_use.load, self.noise_level, self.pool_size)
