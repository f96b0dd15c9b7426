"""Turns the configuration into expansion jobs, and makes what they share once: encoder, prototypes, latents, generator."""

from collections.abc import Iterator
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
from distdiff.config.composition import load_option
from distdiff.console.counting import counted
from distdiff.data.datasets import sentences
from distdiff.data.images import LabelledImages, to_tensor
from distdiff.data.reading.fit import random_crop
from distdiff.data.reading.prefetch import prefetched
from distdiff.encoders.base import Encoder
from distdiff.encoders.source import EncoderSource, encoder_source
from distdiff.energy.hierarchical import HierarchicalEnergy, ImageEnergy
from distdiff.expansion.job import ExpansionJob
from distdiff.expansion.plan import image_seed
from distdiff.expansion.synthesis import Augmentation, GuidedImg2Img, Synthesizer
from distdiff.generator import pipelines
from distdiff.generator.conditioning import Prompts
from distdiff.generator.latent_diffusion import LatentDiffusion, Posterior
from distdiff.guidance.loading import build_guidance
from distdiff.keys import build
from distdiff.prototypes.clustering import AUTO
from distdiff.prototypes.fitting import fit_image_prototypes
from distdiff.prototypes.hierarchical import FORMAT, Prototypes
from distdiff.ranks.trainer import trainer_device
from distdiff.store.formats.options import StorageOptions
from distdiff.store.names import safe_name

REVISION = 2  # raise when a change here or in the guidance changes the images


class Expander:
    """Knows how training sets are expanded under the `generator`, `prototype` and `expansion` keys."""

    def __init__(self, config: DictConfig, cache: StageCache) -> None:
        self.config = config
        self.cache = cache

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
        return {key: value for key, value in keys.items() if key not in no_part} | pipelines.fingerprint(
            self.config.generator
        )

    def guided(self, data: TrainingSet, guidance_config: DictConfig, seed: int) -> ExpansionJob:
        """Copies of each image, as many as `expansion.factor` and `expansion.balance` say, by guided img2img."""
        guidance, weights = build_guidance(guidance_config, self.config.prototype)
        prompts = sentences(self.config.dataset, data.parts[0].class_names)
        ingredients = {
            "revision": REVISION,
            "method": guidance_config.name,
            "guidance": {key: guidance_config[key] for key in guidance.uses} | weights,
            "prototype": self.prototype_identity(data, seed),
            "encoder": self.encoder_source.identity(data, seed),
            "generator": self.generator_identity,
            "prompts": prompts if self.config.dataset.prompts_file else [prompt for (prompt,) in prompts],
            "data": data.fingerprints,
            "fit": data.fit,
            "strength": self.config.expansion.strength,
            "seed": seed,
        }

        def synthesizer(title: str) -> Synthesizer:
            return self.sampler(data, guidance_config, seed, title)

        return self._job(guidance_config.name, ingredients, data, seed, synthesizer)

    def sampler(
        self, data: TrainingSet, guidance_config: DictConfig, seed: int, title: str, positions: np.ndarray | None = None
    ) -> GuidedImg2Img:
        """Guided img2img of all sources, or of those at `positions` alone, which count from 0 then."""
        guidance, weights = build_guidance(guidance_config, self.config.prototype)
        train, generator = data.parts[0], self.generator  # loaded first: it may refuse what only it can know
        encoder = self.encoder(data, seed, title.rsplit(": ", 1)[0])
        # The sampler's size, so that φ resizes real images as it does those that the energy shows it.
        size, fit = self.config.generator.resolution, data.fit
        if guidance.squashes_prototypes:
            size, fit = encoder.input_size, "squash"
        prototypes = self.prototypes(data, seed, encoder, size, fit).to("cpu", generator.latent_dtype)
        energy = ImageEnergy(encoder.to(generator.latent_dtype), HierarchicalEnergy(prototypes, **weights))
        embedded = self.prompts(train.class_names)
        latents = self.latents(data, seed if guidance.freezes_source else None, positions)
        return GuidedImg2Img(generator, guidance, energy, latents, embedded, seed)

    def augmented(self, data: TrainingSet, policy: str, seed: int) -> ExpansionJob:
        """As many copies made by an augmentation policy of `conf/augmentation`, no generator involved."""
        options = load_option("augmentation", policy)
        options.horizontal_flip = self.config.dataset.horizontal_flip
        size = self.config.generator.resolution
        ingredients = {
            "revision": REVISION,
            "method": policy,
            "augmentation": options,
            "resolution": size,
            "data": data.fingerprints,
            "fit": data.fit,
            "seed": seed,
        }

        def synthesizer(_: str) -> Synthesizer:
            return Augmentation(build(options), data.parts[0].tensors(size, data.fit))

        return self._job(policy, ingredients, data, seed, synthesizer)

    @cached_property
    def encoder_source(self) -> EncoderSource:
        """Where φ comes from, by the `encoder` keys."""
        return encoder_source(self.config, self.cache)

    def encoder(self, data: TrainingSet, seed: int, title: str) -> Encoder:
        """φ for the real images `data`."""
        return self.encoder_source.encoder(data, seed, f"{title}: guide")

    def prototypes(self, data: TrainingSet, seed: int, encoder: Encoder, size: int, fit: str) -> Prototypes:
        """Class and group prototypes in φ's features of the real images, made squares of `size` by `fit`."""
        options, train = self.config.prototype, data.parts[0]
        ingredients = {
            "format": FORMAT,
            "encoder": self.encoder_source.identity(data, seed),
            "resolution": size,
            "data": data.fingerprints,
            "fit": fit,
            "prototype": self.prototype_identity(data, seed),
        }

        def build(folder: Path) -> None:
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
                seed=seed,
            )
            named = fitted.described(encoder={self.config.encoder.name: ingredients["encoder"]})
            named.save(folder / "prototypes.safetensors")

        return Prototypes.load(self.cache.get("prototypes", ingredients, build) / "prototypes.safetensors")

    def prototype_identity(self, data: TrainingSet, seed: int) -> dict[str, Any]:
        """The `prototype` keys that can change the prototypes of `data`, and the seed where a class is reduced."""
        options, largest = self.config.prototype, np.bincount(data.parts[0].labels).max()
        identity = {"num_groups": options.num_groups, "linkage": options.linkage}
        if options.num_groups == AUTO:
            identity["max_groups"] = options.max_groups
        if options.num_groups != 1 and largest > options.max_clustered:
            identity |= {"max_clustered": options.max_clustered, "seed": seed}
        return identity

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

        def build(folder: Path) -> None:
            generator.embed(list(number)).save(folder / "prompts.safetensors")

        embedded = Prompts.load(self.cache.get("prompts", ingredients, build) / "prompts.safetensors")
        of_class = tuple(tuple(number[sentence] for sentence in own) for own in of_classes)
        return replace(embedded.to(generator.device), of_class=of_class, sentences=tuple(number))

    def latents(self, data: TrainingSet, crop_seed: int | None, positions: np.ndarray | None = None) -> Posterior:
        """The autoencoder's posterior of every source image, fitted by `dataset.fit` or, given a seed, cropped at random.

        Of the sources at `positions` alone where these are given: nothing else is encoded for them.
        """
        train, size = data.parts[0], self.config.generator.resolution
        ingredients = {
            **{key: self.generator_identity[key] for key in ("model", "checkpoint_config", "variant")},
            "dtype": self.config.generator.dtype,
            "resolution": size,
            "data": data.fingerprints,
            "fit": data.fit if crop_seed is None else {"random_crop": crop_seed},
        }

        def pixels(images: LabelledImages) -> Iterator[torch.Tensor]:
            if crop_seed is None:
                return images.stream(size, data.fit)

            def crop(position: int) -> torch.Tensor:
                class_name = images.class_names[images.labels[position]]
                rng = np.random.default_rng(image_seed(crop_seed, class_name, images.keys[position], "source", "crop"))
                return to_tensor(random_crop(images.image(position), size, rng))

            return prefetched(crop, range(len(images)), images.options.num_workers)

        if positions is not None and not self.cache.has("latents", ingredients):
            return self.generator.encode_all(pixels(train.select(positions)))

        def build(folder: Path) -> None:
            images = zip(pixels(train), counted(range(len(train)), "sources: encode"), strict=True)
            posterior = self.generator.encode_all(image for image, _ in images)
            save_file({"mean": posterior.mean, "std": posterior.std}, folder / "latents.safetensors")

        posterior = Posterior(**load_file(self.cache.get("latents", ingredients, build) / "latents.safetensors"))
        return posterior if positions is None else posterior.select(torch.as_tensor(positions))

    def _job(self, method: str, ingredients: dict[str, Any], data: TrainingSet, seed: int, synthesizer) -> ExpansionJob:
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
