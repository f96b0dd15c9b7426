"""An encoder that needs no model besides the generator: φ is what its denoising network holds at its middle."""

from typing import Annotated, Any

import torch
from torch import nn
from torch.nn import functional as F

from distdiff.classification.preprocessing import Preprocessing
from distdiff.classification.training import TrainingSet
from distdiff.encoders.base import Encoder
from distdiff.encoders.source import EncoderContext, GeneratorInUse, PretrainedSource
from distdiff.errors import UserError
from distdiff.generator.latent_diffusion import LatentDiffusion
from distdiff.generator.middle import at_noise_level, hidden_state
from distdiff.keys import Limits

# The keys of the generator on which its features depend; a distilled network takes the guidance scale as an input.
KEYS = ("model", "checkpoint_config", "variant", "use_t5", "lora", "dtype", "resolution", "cfg_scale")
NOISE_SEED = 0  # every image gets the same noise, so that φ is a function of the image

NoiseLevel = Annotated[float, Limits(at_least=0, at_most=1)]
Positions = Annotated[int, Limits(at_least=1, at_most=64)]


class GeneratorEncoder(Encoder):
    """φ(x): the hidden state at the middle of the denoising network for the image's latents at a noise level.

    The network gets the mean of the autoencoder's posterior, with noise that is the same for every image, and an empty prompt.
    Its hidden state is averaged over `positions` x `positions` fields of equal size, so that D = C · positions². Such features
    know classes (Baranchuk et al., ICLR 2022, arXiv 2112.03126; Xiang et al., ICCV 2023, arXiv 2303.09769).
    """

    def __init__(self, generator: LatentDiffusion, noise_level: float, positions: int) -> None:
        self._generator = (generator,)  # no submodule: moving or converting φ must not move or convert the generator
        self.noise_level = noise_level
        self.positions = positions
        self._noise = torch.randn(generator.latent_shape, generator=torch.Generator().manual_seed(NOISE_SEED))
        self._prompt = generator.embed([""]).positive
        in_range = Preprocessing(generator.resolution, mean=(0.5,) * 3, std=(0.5,) * 3)  # [−1, 1], as the autoencoder's
        size = (1, 3, generator.resolution, generator.resolution)
        with torch.no_grad():
            super().__init__(nn.Identity(), in_range, self._features(torch.zeros(size)).shape[1])

    @property
    def generator(self) -> LatentDiffusion:
        return self._generator[0]

    @property
    def device(self) -> torch.device:
        return self.generator.device

    def extract(self, inputs: torch.Tensor) -> torch.Tensor:
        return self._features(inputs)

    def _features(self, inputs: torch.Tensor) -> torch.Tensor:
        generator = self.generator
        latents = generator.posterior((inputs / 2 + 0.5).to(generator.device)).mean
        noisy, timestep = at_noise_level(generator, latents, self._noise.to(latents), self.noise_level)
        prompts = self._prompt.to(generator.device).expand(len(inputs))
        hidden = hidden_state(generator, noisy, timestep, prompts).to(inputs)
        return F.adaptive_avg_pool2d(hidden, self.positions).flatten(1)


class GeneratorFeatures(PretrainedSource):
    """The features of the generator that the `generator` keys choose."""

    def __init__(self, context: EncoderContext, *, noise_level: NoiseLevel, positions: Positions) -> None:
        self.noise_level = noise_level
        self.positions = positions
        self._generator = context.generator

    @property
    def generator(self) -> GeneratorInUse:
        """Raises `UserError` where no generator is in use."""
        if self._generator is None:
            raise UserError("encoder=generator is not allowed here: there is no generator whose features it could have")
        return self._generator

    def ingredients(self) -> dict[str, Any]:
        identity = self.generator.identity()
        return {
            "name": "generator",
            "noise_level": self.noise_level,
            "positions": self.positions,
            "generator": {key: identity[key] for key in KEYS},
        }

    def load(self) -> GeneratorEncoder:
        return GeneratorEncoder(self.generator.load(), self.noise_level, self.positions)

    def encoder(self, data: TrainingSet, seed: int, title: str) -> GeneratorEncoder:
        return self.load()  # kept, it would hold a generator in memory after others have taken its place
