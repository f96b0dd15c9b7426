"""Builds the materials of methods, such as latents and prompts, from the real images, or loads them from the cache."""

from collections.abc import Iterator
from dataclasses import replace
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hydra.utils import get_object
from omegaconf import DictConfig
from torch import nn

from distdiff.caching.stages import StageCache
from distdiff.classification.training import TrainingSet
from distdiff.console.bar import with_progress
from distdiff.data.cache.squares import Squares
from distdiff.data.datasets import sentences
from distdiff.data.images import LabelledImages
from distdiff.data.pixels import to_tensor
from distdiff.data.reading.prefetch import prefetched
from distdiff.encoders.base import Encoder
from distdiff.encoders.source import EncoderSource
from distdiff.energy.assembling import build_energy
from distdiff.energy.config import EXEMPLARS, PROTOTYPES
from distdiff.energy.config import needs_of as energy_needs_of
from distdiff.energy.images import ImageEnergy
from distdiff.expansion.generators import Generators
from distdiff.generator.conditioning import Prompts
from distdiff.generator.inversion import inverter
from distdiff.generator.inversions import ComputedInversions, Inversions, StoredInversions
from distdiff.generator.latent_diffusion import LatentDiffusion
from distdiff.generator.latents import EncodedLatents, Latents, StoredLatents
from distdiff.generator.noise import image_seed
from distdiff.guidance.base import Guidance
from distdiff.guidance.config import needs_of as guidance_needs_of
from distdiff.guidance.preparation import Crop, Preparation
from distdiff.guidance.real import RealFeatures, RealLatents
from distdiff.keys import TARGET, build
from distdiff.methods.base import Method
from distdiff.methods.config import INVERSIONS, needs_of
from distdiff.methods.synthesis import Synthesizer
from distdiff.prototypes.exemplars import Exemplars
from distdiff.prototypes.fitting import fit_image_prototypes, image_features, prototype_identity
from distdiff.prototypes.hierarchical import FORMAT, Prototypes
from distdiff.ranks.trainer import trainer_device

LATENTS_FORMAT = 2  # raise when the format of a posterior's files changes
INVERSIONS_FORMAT = 1  # raise when the format of an inversion's file, or the inversion itself, changes

WITHOUT_SCALE = ("cfg_scale", "negative_prompt", "guidance_decoder")  # keys of a generator that change no inversion


class Materials:
    """Builds the materials of methods for one configuration and the training images of one study seed.

    Each material that the docstring of `Method.synthesizer` lists is an attribute of the same name.
    """

    def __init__(
        self,
        config: DictConfig,
        data: TrainingSet,
        seed: int,
        title: str,
        cache: StageCache,
        encoders: EncoderSource,
        generators: Generators,
        few: bool = False,
    ) -> None:
        """`title` labels progress bars.

        `few`: whether only a few images will be made. If so, a source is encoded only when it is needed.
        """
        self.config = config
        self.data = data
        self.seed = seed
        self.title = title
        self.cache = cache
        self.encoders = encoders
        self._generators = generators
        self.few = few

    def synthesizer(self, method: Method) -> Synthesizer:
        """Builds the method's synthesizer from the materials that the method asks for."""
        needs = needs_of(self.config.method)
        if {"generator", "prompts", "latents"} & set(needs):
            generator = self.generator  # loaded first: some errors in the configuration show only then
            if "prompts" in needs:
                self._generators.say(
                    generator.check_prompts(self._sentences, self.train.class_names, self._prompts_key)
                )
        return method.synthesizer(**{need: getattr(self, need) for need in needs})

    @property
    def train(self) -> LabelledImages:
        return self.data.parts[0]

    @property
    def size(self) -> int:
        """The side in pixels of new images, and of real images that are compared with them."""
        return self.config.generator.resolution

    @property
    def generator(self) -> LatentDiffusion:
        """The generator, moved to the trainer's device; Lightning moves it back to the CPU after each prediction."""
        return self._generators.load(self.config.generator, trainer_device(self.config.trainer))

    @cached_property
    def squares(self) -> Squares:
        return self.train.squares(self.size, self.data.fit, keep=False)

    @cached_property
    def guidance(self) -> Guidance:
        return self.guidance_with()

    def guidance_with(self, **keys: Any) -> Guidance:
        """The guidance method that the `guidance` keys choose, with `keys` in place of its own."""
        option = self.config.guidance
        return build(option, *(getattr(self, need) for need in guidance_needs_of(option)), **keys)

    @property
    def real_features(self) -> RealFeatures:
        """The features of the real images under φ, for a guidance method that compares new images with them."""
        encoder = self.image_energy.encoder
        size, fit = self.preparation.prototype_view(self.size, self.data.fit, encoder.input_size)
        dtype = self._generators.latent_dtype(self.config.generator)
        found = self.exemplars(encoder, size, fit).to("cpu", dtype)
        encoder.to(dtype)
        return RealFeatures(found, len(self.train.class_names))

    @property
    def real_latents(self) -> RealLatents:
        """The latents of the real images, for a guidance method that compares new images with them."""
        return RealLatents(self.latents, self.train.labels, self.train.keys)

    @cached_property
    def policy(self) -> nn.Module:
        return build(self.config.options.augmentation[self.config.method.policy])

    @cached_property
    def image_energy(self) -> ImageEnergy:
        """The energy that the `energy` keys choose, with the prototypes or exemplars that it needs.

        Prototypes and exemplars are computed from real images that are prepared as the guidance method asks.
        """
        encoder = self.encoder()
        preparation = self.preparation
        size, fit = preparation.prototype_view(self.size, self.data.fit, encoder.input_size)
        dtype = self._generators.latent_dtype(self.config.generator)
        brought = {
            need: {PROTOTYPES: self.prototypes, EXEMPLARS: self.exemplars}[need](encoder, size, fit).to("cpu", dtype)
            for need in energy_needs_of(self.config.energy)
        }
        return ImageEnergy(encoder.to(dtype), build_energy(self.config.energy, brought))

    @property
    def preparation(self) -> Preparation:
        """How images are prepared for latents and prototypes.

        The guidance method decides this. For a method without guidance, `Preparation()` gives the defaults.
        """
        option = self.config.guidance
        if "guidance" not in needs_of(self.config.method):
            return Preparation()
        if guidance_needs_of(option):  # asked before the method is built, because what it needs depends on the answer
            return get_object(option[TARGET]).preparation
        return self.guidance.preparation

    def encoder(self) -> Encoder:
        """The encoder φ, trained or loaded."""
        return self.encoders.encoder(self.data, self.seed, f"{self.title.rsplit(': ', 1)[0]}: guide")

    def prototypes(self, encoder: Encoder, size: int, fit: str) -> Prototypes:
        """Class and group prototypes of the real images under φ; `fit` is how images become squares of side `size`."""
        options, train = self.config.prototype, self.train
        ingredients = self._view(size, fit) | {
            "format": FORMAT,
            "prototype": prototype_identity(options, train.labels, self.seed),
        }

        def build_stage(folder: Path) -> None:
            encoder.to(trainer_device(self.config.trainer), torch.float32)
            fitted = fit_image_prototypes(
                train,
                encoder,
                size,
                fit,
                num_groups=options.num_groups,
                linkage=options.linkage,
                max_groups=options.max_groups,
                max_clustered=options.max_clustered,
                class_level=options.class_level,
                group_level=options.group_level,
                seed=self.seed,
            )
            named = fitted.described(encoder={self.config.encoder.name: ingredients["encoder"]})
            named.save(folder / "prototypes.safetensors")

        return Prototypes.load(self.cache.get("prototypes", ingredients, build_stage) / "prototypes.safetensors")

    def exemplars(self, encoder: Encoder, size: int, fit: str) -> Exemplars:
        """The features of each real image under φ; `fit` is how images become squares of side `size`."""
        train = self.train

        def build_stage(folder: Path) -> None:
            encoder.to(trainer_device(self.config.trainer), torch.float32)
            Exemplars.of(train, image_features(train, encoder, size, fit)).save(folder / "exemplars.safetensors")

        folder = self.cache.get("exemplars", self._view(size, fit), build_stage)
        return Exemplars.load(folder / "exemplars.safetensors", train)

    @cached_property
    def _sentences(self) -> list[list[str]]:
        return sentences(self.config.dataset, self.train.class_names)

    @property
    def _prompts_key(self) -> str:
        dataset = self.config.dataset
        return f"dataset.{'prompt_template' if dataset.prompts_file is None else 'prompts_file'}"

    @cached_property
    def prompts(self) -> Prompts:
        """The prompts of all classes, embedded by the generator's text encoders; each distinct sentence is embedded once."""
        of_classes = self._sentences
        number = {sentence: i for i, sentence in enumerate(dict.fromkeys(chain.from_iterable(of_classes)))}
        generator = self.generator
        identity = self._generators.identity(self.config.generator)
        keys = (
            *("model", "checkpoint_config", "variant", "use_t5", "lora", "textual_inversion"),
            *("negative_prompt", "dtype"),
        )
        ingredients = {
            **{key: identity[key] for key in keys},
            "classifier_free": generator.family.classifier_free,
            "prompts": list(number),
        }

        def build_stage(folder: Path) -> None:
            generator.embed(list(number)).save(folder / "prompts.safetensors")

        embedded = Prompts.load(self.cache.get("prompts", ingredients, build_stage) / "prompts.safetensors")
        of_class = tuple(tuple(number[sentence] for sentence in own) for own in of_classes)
        return replace(embedded.to(generator.device), of_class=of_class, sentences=tuple(number))

    @cached_property
    def latents(self) -> Latents:
        """The autoencoder's posterior of every source.

        Sources are made square by the guidance method's random crop if that method has one, else by `dataset.fit`.
        """
        train, random_crop, generator = self.train, self.preparation.random_crop, self.generator
        identity = self._generators.identity(self.config.generator)
        how = None if random_crop is None else f"{random_crop.__module__}.{random_crop.__qualname__}"
        ingredients = {
            "format": LATENTS_FORMAT,
            **{key: identity[key] for key in ("model", "checkpoint_config", "variant")},
            "dtype": self.config.generator.dtype,
            "resolution": self.size,
            "data": self.data.fingerprints,
            "fit": self.data.fit if how is None else {how: self.seed},
        }

        def square(position: int) -> torch.Tensor:
            if random_crop is None:
                return train.tensor(position, self.size, self.data.fit)
            return _crop(train, position, self.size, random_crop, self.seed)

        def squares() -> Iterator[torch.Tensor]:
            if random_crop is None:
                return train.stream(self.size, self.data.fit)
            return prefetched(square, range(len(train)), train.options.num_workers)

        if self.few and not self.cache.has("latents", ingredients):
            return EncodedLatents(generator, square)

        def build_stage(folder: Path) -> None:
            images = zip(squares(), with_progress(range(len(train)), "sources: encode"), strict=True)
            StoredLatents.write(folder, generator.encode_batches(image for image, _ in images), len(train))

        return StoredLatents(self.cache.get("latents", ingredients, build_stage))

    @cached_property
    def inversions(self) -> Inversions:
        """The noise of every source, from which the generator draws the source under the first prompt of its class."""
        generator, train, steps = self.generator, self.train, self.config.method.inversion_steps
        inverted = inverter(generator, lambda: self.latents, self.prompts, train.labels, steps)
        identity = self._generators.identity(self.config.generator)
        ingredients = {
            "format": INVERSIONS_FORMAT,
            "generator": {key: value for key, value in identity.items() if key not in WITHOUT_SCALE},
            "data": self.data.fingerprints,
            "fit": self.data.fit,
            "prompts": [own[0] for own in self._sentences],
            "steps": steps,
        }
        if self.few and not self.cache.has(INVERSIONS, ingredients):
            return ComputedInversions(inverted)

        def build_stage(folder: Path) -> None:
            size = self.config.generator.usual_batch_size
            parts = [range(start, min(start + size, len(train))) for start in range(0, len(train), size)]
            found = (inverted(torch.tensor(part)) for part in with_progress(parts, "sources: invert", "batches"))
            StoredInversions.write(folder, found, len(train))

        return StoredInversions(self.cache.get(INVERSIONS, ingredients, build_stage))

    def _view(self, size: int, fit: str) -> dict[str, Any]:
        """What identifies the real images' features under φ, if `fit` is how images become squares of side `size`."""
        return {
            "encoder": self.encoders.identity(self.data, self.seed),
            "resolution": size,
            "data": self.data.fingerprints,
            "fit": fit,
        }


def _crop(images: LabelledImages, position: int, size: int, random_crop: Crop, seed: int) -> torch.Tensor:
    """One random crop of an image, drawn from the image's own random stream."""
    class_name = images.class_names[images.labels[position]]
    rng = np.random.default_rng(image_seed(seed, class_name, images.keys[position], "source", "crop"))
    return to_tensor(random_crop(images.image(position), size, rng))
