"""Turns the configuration into expansion jobs, and makes what they share once: encoder, prototypes, latents, generator."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import DictConfig, OmegaConf
from safetensors.torch import load_file, save_file

from distdiff.caching.fingerprint import fingerprint
from distdiff.caching.stages import StageCache
from distdiff.classification.training import TrainingSet
from distdiff.console.bar import with_progress
from distdiff.data.datasets import sentences
from distdiff.data.images import LabelledImages
from distdiff.data.pixels import to_tensor
from distdiff.data.reading.prefetch import prefetched
from distdiff.encoders.base import Encoder
from distdiff.encoders.source import encoder_source
from distdiff.energy.assembling import build_energy
from distdiff.energy.config import EXEMPLARS, PROTOTYPES, needs_of
from distdiff.energy.images import ImageEnergy
from distdiff.expansion.job import ExpansionJob
from distdiff.expansion.synthesis import Augmentation, GuidedImg2Img, Synthesizer
from distdiff.generator import pipelines
from distdiff.generator.conditioning import Prompts
from distdiff.generator.latent_diffusion import LatentDiffusion, Posterior
from distdiff.generator.noise import image_seed
from distdiff.guidance.base import Guidance
from distdiff.guidance.preparation import Crop
from distdiff.keys import build, option_identity
from distdiff.prototypes.exemplars import Exemplars
from distdiff.prototypes.fitting import fit_image_prototypes, image_features, prototype_identity
from distdiff.prototypes.hierarchical import FORMAT, Prototypes
from distdiff.ranks.trainer import trainer_device
from distdiff.store.names import safe_name
from distdiff.store.options import StorageOptions

REVISION = 2  # raise when a change here or in the guidance changes the images


class Assembly:
    """Knows how training sets are expanded under the `generator`, `encoder`, `prototype`, `energy` and `expansion` keys."""

    def __init__(self, config: DictConfig, cache: StageCache) -> None:
        self.config = config
        self.cache = cache
        self.encoders = encoder_source(config, cache)

    @property
    def generator(self) -> LatentDiffusion:
        """The generator on the trainer's device, where encoding is fast; Lightning takes it off after each prediction."""
        return self._loaded.to(trainer_device(self.config.trainer))

    @cached_property
    def _loaded(self) -> LatentDiffusion:
        return pipelines.load_generator(self.config.generator)

    @cached_property
    def generator_identity(self) -> dict[str, Any]:
        """The `generator` keys that can change an image, weights by what is in them."""
        keys = OmegaConf.to_container(self.config.generator, resolve=True)
        no_part = ("draws", "usual_strength", "usual_batch_size", "gradient_checkpointing")
        own = {key: value for key, value in keys.items() if key not in no_part}
        return own | pipelines.fingerprint(self.config.generator)

    def guided(self, data: TrainingSet, guidance: DictConfig, seed: int) -> ExpansionJob:
        """Copies of each image, as many as `expansion.factor` and `expansion.balance` say, by guided img2img."""
        prompts = sentences(self.config.dataset, data.parts[0].class_names)
        ingredients = {
            "revision": REVISION,
            "method": guidance.name,
            "guidance": option_identity(guidance),
            "energy": self.energy_identity(data, seed),
            "encoder": self.encoders.identity(data, seed),
            "generator": self.generator_identity,
            "prompts": prompts if self.config.dataset.prompts_file else [prompt for (prompt,) in prompts],
            "data": data.fingerprints,
            "fit": data.fit,
            "strength": self.config.expansion.strength,
            "seed": seed,
        }

        def synthesizer(title: str) -> Synthesizer:
            return self.sampler(data, guidance, seed, title)

        return self._job(guidance.name, ingredients, data, seed, synthesizer)

    def sampler(
        self, data: TrainingSet, guidance: DictConfig, seed: int, title: str, positions: np.ndarray | None = None
    ) -> GuidedImg2Img:
        """Guided img2img of all sources, or of those at `positions` alone, which count from 0 then."""
        method: Guidance = build(guidance)
        train, generator = data.parts[0], self.generator  # loaded first: it may refuse what only it can know
        encoder = self.encoders.encoder(data, seed, f"{title.rsplit(': ', 1)[0]}: guide")
        resolution = self.config.generator.resolution
        size, fit = method.preparation.prototype_view(resolution, data.fit, encoder.input_size)
        energy = self.energy(data, seed, encoder, size, fit)
        return GuidedImg2Img(
            generator,
            method,
            ImageEnergy(encoder.to(generator.latent_dtype), energy),
            self.latents(data, seed, method.preparation.random_crop, positions),
            self.prompts(train.class_names),
            seed,
        )

    def augmented(self, data: TrainingSet, policy: DictConfig, seed: int) -> ExpansionJob:
        """As many copies made by an augmentation policy, no generator involved."""
        size = self.config.generator.resolution
        ingredients = {
            "revision": REVISION,
            "method": policy.name,
            "augmentation": policy,
            "resolution": size,
            "data": data.fingerprints,
            "fit": data.fit,
            "seed": seed,
        }

        def synthesizer(_: str) -> Synthesizer:
            return Augmentation(build(policy), data.parts[0].tensors(size, data.fit))

        return self._job(policy.name, ingredients, data, seed, synthesizer)

    def energy(self, data: TrainingSet, seed: int, encoder: Encoder, size: int, fit: str) -> torch.nn.Module:
        """The energy of the `energy` keys with what it needs of the real images, made squares of `size` by `fit`."""
        brought: dict[str, Any] = {}
        for need in needs_of(self.config.energy):
            make = {PROTOTYPES: self.prototypes, EXEMPLARS: self.exemplars}[need]
            brought[need] = make(data, seed, encoder, size, fit).to("cpu", self.generator.latent_dtype)
        return build_energy(self.config.energy, brought)

    def energy_identity(self, data: TrainingSet, seed: int) -> dict[str, Any]:
        """The `energy` keys, and the `prototype` keys where it needs prototypes."""
        identity = option_identity(self.config.energy)
        if PROTOTYPES in needs_of(self.config.energy):
            identity["prototype"] = prototype_identity(self.config.prototype, data.parts[0].labels, seed)
        return identity

    def prototypes(self, data: TrainingSet, seed: int, encoder: Encoder, size: int, fit: str) -> Prototypes:
        """Class and group prototypes in φ's features of the real images, made squares of `size` by `fit`."""
        options, train = self.config.prototype, data.parts[0]
        ingredients = self._view(data, seed, size, fit) | {
            "format": FORMAT,
            "prototype": prototype_identity(options, train.labels, seed),
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
                seed=seed,
            )
            named = fitted.described(encoder={self.config.encoder.name: ingredients["encoder"]})
            named.save(folder / "prototypes.safetensors")

        return Prototypes.load(self.cache.get("prototypes", ingredients, build_stage) / "prototypes.safetensors")

    def exemplars(self, data: TrainingSet, seed: int, encoder: Encoder, size: int, fit: str) -> Exemplars:
        """φ's features of each real image, made a square of `size` by `fit`."""
        train = data.parts[0]

        def build_stage(folder: Path) -> None:
            encoder.to(trainer_device(self.config.trainer), torch.float32)
            Exemplars.of(train, image_features(train, encoder, size, fit)).save(folder / "exemplars.safetensors")

        folder = self.cache.get("exemplars", self._view(data, seed, size, fit), build_stage)
        return Exemplars.load(folder / "exemplars.safetensors", train)

    def prompts(self, class_names: tuple[str, ...]) -> Prompts:
        """The prompts of each class as the generator's text encoders give them, each distinct sentence embedded once."""
        of_classes = sentences(self.config.dataset, class_names)
        number = {sentence: i for i, sentence in enumerate(dict.fromkeys(chain.from_iterable(of_classes)))}
        generator = self.generator
        keys = (
            "model",
            "checkpoint_config",
            "variant",
            "use_t5",
            "lora",
            "textual_inversion",
            "negative_prompt",
            "dtype",
        )
        ingredients = {
            **{key: self.generator_identity[key] for key in keys},
            "classifier_free": generator.family.classifier_free,
            "prompts": list(number),
        }

        def build_stage(folder: Path) -> None:
            generator.embed(list(number)).save(folder / "prompts.safetensors")

        embedded = Prompts.load(self.cache.get("prompts", ingredients, build_stage) / "prompts.safetensors")
        of_class = tuple(tuple(number[sentence] for sentence in own) for own in of_classes)
        return replace(embedded.to(generator.device), of_class=of_class, sentences=tuple(number))

    def latents(
        self, data: TrainingSet, seed: int, random_crop: Crop | None = None, positions: np.ndarray | None = None
    ) -> Posterior:
        """The autoencoder's posterior of every source image, fitted by `dataset.fit` or, if given, by `random_crop`.

        Of the sources at `positions` alone where these are given: nothing else is encoded for them.
        """
        train, size = data.parts[0], self.config.generator.resolution
        ingredients = {
            **{key: self.generator_identity[key] for key in ("model", "checkpoint_config", "variant")},
            "dtype": self.config.generator.dtype,
            "resolution": size,
            "data": data.fingerprints,
            "fit": data.fit if random_crop is None else {f"{random_crop.__module__}.{random_crop.__qualname__}": seed},
        }

        def squares(images: LabelledImages) -> Iterator[torch.Tensor]:
            if random_crop is None:
                return images.stream(size, data.fit)
            return _crops(images, size, random_crop, seed)

        if positions is not None and not self.cache.has("latents", ingredients):
            return self.generator.encode_all(squares(train.select(positions)))

        def build_stage(folder: Path) -> None:
            images = zip(squares(train), with_progress(range(len(train)), "sources: encode"), strict=True)
            posterior = self.generator.encode_all(image for image, _ in images)
            save_file({"mean": posterior.mean, "std": posterior.std}, folder / "latents.safetensors")

        posterior = Posterior(**load_file(self.cache.get("latents", ingredients, build_stage) / "latents.safetensors"))
        return posterior if positions is None else posterior.select(torch.as_tensor(positions))

    def _view(self, data: TrainingSet, seed: int, size: int, fit: str) -> dict[str, Any]:
        """What identifies φ's features of the real images as the energy sees them."""
        return {
            "encoder": self.encoders.identity(data, seed),
            "resolution": size,
            "data": data.fingerprints,
            "fit": fit,
        }

    def _job(
        self,
        method: str,
        ingredients: Mapping[str, Any],
        data: TrainingSet,
        seed: int,
        synthesizer: Callable[[str], Synthesizer],
    ) -> ExpansionJob:
        ingredients = dict(ingredients)
        if self.config.expansion.balance:  # else no word of it: fingerprints from before there was a choice stay
            ingredients["balance"] = True
        path = self.directory_for(method, seed, fingerprint(ingredients))
        return ExpansionJob(method, seed, data.parts[0], ingredients, synthesizer, path, self.config)

    def directory_for(self, method: str, seed: int, identity: str) -> Path:
        """`expansion.output_dir`, or by name, fingerprint and storage, if not the default one, below `paths.expanded_dir`."""
        if self.config.expansion.output_dir and self.config.command == "expand":
            return Path(self.config.expansion.output_dir)
        if self.config.expansion.output_dir:  # a study has several
            return Path(self.config.expansion.output_dir) / f"{method}-seed{seed}"
        parts = (safe_name(self.config.dataset.name), method, identity, StorageOptions.of(self.config).words)
        return Path(self.config.paths.expanded_dir) / "-".join(filter(None, parts))


def _crops(images: LabelledImages, size: int, random_crop: Crop, seed: int) -> Iterator[torch.Tensor]:
    """One crop of each image, by a generator of its own."""

    def crop(position: int) -> torch.Tensor:
        class_name = images.class_names[images.labels[position]]
        rng = np.random.default_rng(image_seed(seed, class_name, images.keys[position], "source", "crop"))
        return to_tensor(random_crop(images.image(position), size, rng))

    return prefetched(crop, range(len(images)), images.options.num_workers)
