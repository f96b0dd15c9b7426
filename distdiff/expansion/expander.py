"""Turns the configuration into expansion jobs, and makes what they share once: encoder, prototypes, latents, generator."""

from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import DictConfig, OmegaConf
from safetensors.torch import load_file, save_file

from distdiff.caching.fingerprint import fingerprint
from distdiff.caching.stages import StageCache
from distdiff.classification.training import ClassifierTrainer, TrainingSet
from distdiff.config.composition import load_option
from distdiff.config.instantiation import build
from distdiff.data.loading import prompts
from distdiff.encoders.base import Encoder
from distdiff.encoders.guide import GuideEncoder
from distdiff.encoders.loading import fingerprint as encoder_fingerprint
from distdiff.encoders.loading import load_encoder, trains_guide
from distdiff.expansion.job import ExpansionJob
from distdiff.expansion.names import safe_name
from distdiff.expansion.synthesis import Augmentation, GuidedImg2Img, Synthesizer
from distdiff.generator import loading
from distdiff.generator.latent_diffusion import LatentDiffusion, Posterior
from distdiff.guidance.base import Guidance
from distdiff.guidance.energy import HierarchicalEnergy
from distdiff.prototypes.hierarchical import Prototypes, fit_prototypes
from distdiff.trainer import trainer_device

REVISION = 1  # raise when a change here or in the guidance changes the images
ENCODE_BATCH = 16


class Expander:
    """Knows how training sets are expanded under the `generator`, `prototype` and `expansion` keys."""

    def __init__(self, config: DictConfig, classifiers: ClassifierTrainer, cache: StageCache) -> None:
        self.config = config
        self.classifiers = classifiers
        self.cache = cache

    @property
    def generator(self) -> LatentDiffusion:
        """The generator on the trainer's device, where encoding is fast; Lightning takes it off after each prediction."""
        return self._loaded.to(trainer_device(self.config.trainer))

    @cached_property
    def _loaded(self) -> LatentDiffusion:
        return loading.load_generator(self.config.generator)

    @cached_property
    def generator_identity(self) -> dict[str, Any]:
        """The `generator` keys that can change an image, the model by its content."""
        keys = OmegaConf.to_container(self.config.generator, resolve=True)
        no_part = ("usual_strength", "usual_batch_size")
        return {key: value for key, value in keys.items() if key not in no_part} | {
            "model": loading.fingerprint(self.config.generator)
        }

    def guided(self, data: TrainingSet, guidance_config: DictConfig, seed: int) -> ExpansionJob:
        """`expansion.factor` copies of each image by guided img2img."""
        guidance, weights = build_guidance(guidance_config, self.config.prototype)
        ingredients = {
            "revision": REVISION,
            "method": guidance_config.name,
            "guidance": {key: guidance_config[key] for key in guidance.uses} | weights,
            "prototype": {key: self.config.prototype[key] for key in ("num_groups", "linkage")},
            "encoder": self.encoder_fingerprint(data, seed),
            "generator": self.generator_identity,
            "prompts": prompts(self.config.dataset, data.parts[0].class_names),
            "data": data.fingerprints,
            "fit": data.fit,
            "strength": self.config.expansion.strength,
            "seed": seed,
        }

        def synthesizer(title: str) -> Synthesizer:
            train = data.parts[0]
            encoder = self.encoder(data, seed, title.rsplit(": ", 1)[0])
            precision = torch.float64 if self.generator.dtype == torch.float64 else torch.float32
            prototypes = self.prototypes(data, seed, encoder).to("cpu", precision)
            energy = HierarchicalEnergy(encoder.to(precision), prototypes, **weights)
            generator = self.generator
            embeddings = generator.embed(prompts(self.config.dataset, train.class_names))
            negative = generator.embed([self.config.generator.negative_prompt])
            return GuidedImg2Img(generator, guidance, energy, self.latents(data), embeddings, negative, seed)

        return self._job(guidance_config.name, ingredients, data, seed, synthesizer)

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

    def encoder(self, data: TrainingSet, seed: int, title: str) -> Encoder:
        """φ: a classifier trained on the real images alone, after its last step, or the one that the `encoder` keys name."""
        if trains_guide(self.config.encoder):
            return GuideEncoder(self.classifiers.train(data, seed, f"{title}: guide"))
        return self._loaded_encoder

    def encoder_fingerprint(self, data: TrainingSet, seed: int) -> str:
        """Identifies φ, before a guide is trained."""
        if trains_guide(self.config.encoder):
            return self.classifiers.fingerprint(data, seed)
        return self._loaded_encoder_fingerprint

    @cached_property
    def _loaded_encoder(self) -> Encoder:
        return load_encoder(self.config.encoder, self.config.classifier)

    @cached_property
    def _loaded_encoder_fingerprint(self) -> str:
        return encoder_fingerprint(self.config.encoder, self.config.classifier)

    def prototypes(self, data: TrainingSet, seed: int, encoder: Encoder) -> Prototypes:
        """Class and group prototypes of the real images, in the sampler's size, so that φ sees what the energy shows it."""
        options, train, size = self.config.prototype, data.parts[0], self.config.generator.resolution
        ingredients = {
            "encoder": self.encoder_fingerprint(data, seed),
            "resolution": size,
            "data": data.fingerprints,
            "fit": data.fit,
            "num_groups": options.num_groups,
            "linkage": options.linkage,
        }

        @torch.no_grad()
        def build(folder: Path) -> None:
            device = trainer_device(self.config.trainer)
            encoder.to(device, torch.float32)
            features = []
            for start in range(0, len(train), ENCODE_BATCH):
                chunk = range(start, min(start + ENCODE_BATCH, len(train)))
                images = torch.stack([train.tensor(i, size, data.fit) for i in chunk])
                features.append(encoder(images.to(device)).cpu())
            features = torch.cat(features)
            fitted = fit_prototypes(features, train.labels, len(train.class_names), options.num_groups, options.linkage)
            fitted.save(folder / "prototypes.safetensors", {"class_names": list(train.class_names)})

        return Prototypes.load(self.cache.get("prototypes", ingredients, build) / "prototypes.safetensors")

    def latents(self, data: TrainingSet) -> Posterior:
        """The autoencoder's posterior of every source image."""
        train, size = data.parts[0], self.config.generator.resolution
        ingredients = {
            "model": self.generator_identity["model"],
            "dtype": self.config.generator.dtype,
            "resolution": size,
            "data": data.fingerprints,
            "fit": data.fit,
        }

        def build(folder: Path) -> None:
            generator = self.generator
            parts = [
                generator.encode(torch.stack([train.tensor(i, size, data.fit) for i in chunk]))
                for chunk in np.array_split(np.arange(len(train)), -(-len(train) // ENCODE_BATCH))
            ]
            tensors = {
                name: torch.cat([getattr(part, name) for part in parts]).cpu().contiguous() for name in ("mean", "std")
            }
            save_file(tensors, folder / "latents.safetensors")

        return Posterior(**load_file(self.cache.get("latents", ingredients, build) / "latents.safetensors"))

    def _job(self, method: str, ingredients: dict[str, Any], data: TrainingSet, seed: int, synthesizer) -> ExpansionJob:
        path = self.directory_for(method, seed, fingerprint(ingredients))
        return ExpansionJob(method, seed, data.parts[0], ingredients, synthesizer, path, self.config)

    def directory_for(self, method: str, seed: int, identity: str) -> Path:
        """`expansion.output_dir`, or by name and fingerprint below `paths.expanded_dir`."""
        if self.config.expansion.output_dir and self.config.command == "expand":
            return Path(self.config.expansion.output_dir)
        if self.config.expansion.output_dir:  # a study has several
            return Path(self.config.expansion.output_dir) / f"{method}-seed{seed}"
        return Path(self.config.paths.expanded_dir) / f"{safe_name(self.config.dataset.name)}-{method}-{identity}"


def build_guidance(config: DictConfig, prototype: DictConfig) -> tuple[Guidance, dict[str, float]]:
    """The guidance method, and the energy's weights (zero for a level of prototypes that is switched off)."""
    weights = {
        "class_weight": config.class_weight * prototype.class_level,
        "group_weight": config.group_weight * prototype.group_level,
    }
    methods_own = OmegaConf.masked_copy(config, [key for key in config if key not in ("name", *weights)])
    return build(methods_own), weights
