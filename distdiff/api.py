"""DistDiff in a notebook: load a generator, fit prototypes on a folder, expand PIL images."""

import difflib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from PIL import Image

from distdiff.caching.stages import StageCache
from distdiff.classification.training import training_set
from distdiff.commands.configuration import configure, load_option
from distdiff.config.arguments import in_quotes
from distdiff.config.options import options
from distdiff.data.images import LabelledImages
from distdiff.data.pixels import to_image, to_tensor
from distdiff.data.reading.decoding import to_rgb
from distdiff.data.reading.fit import fit_image
from distdiff.data.sources.imagefolder import read_class_folders
from distdiff.encoders.base import Encoder
from distdiff.encoders.guide import GuideEncoder
from distdiff.encoders.source import EncoderSource, encoder_source
from distdiff.energy.assembling import build_energy
from distdiff.energy.base import Energy
from distdiff.energy.config import EXEMPLARS, PROTOTYPES, needs_of
from distdiff.energy.images import ImageEnergy
from distdiff.errors import UserError
from distdiff.expansion.plan import WorkItem
from distdiff.expansion.synthesis import GuidedImg2Img
from distdiff.generator import config as generator_keys
from distdiff.generator import pipelines
from distdiff.generator.latent_diffusion import LatentDiffusion
from distdiff.generator.noise import image_seed
from distdiff.guidance.base import Guidance
from distdiff.keys import build
from distdiff.prototypes.exemplars import Exemplars
from distdiff.prototypes.fitting import fit_image_prototypes, image_features
from distdiff.prototypes.hierarchical import Prototypes

PROTOTYPE_KEYS = ("num_groups", "linkage", "max_groups", "max_clustered", "class_level", "group_level")


def load_images(root: str) -> LabelledImages:
    """The images of a folder with one folder a class, read when needed; raises `UserError` where there are none."""
    return read_class_folders(root, key="root")


def load_generator(name: str, **keys: Any) -> LatentDiffusion:
    """An option of `conf/generator` by name, or any pipeline by folder, hub id or checkpoint file; on a GPU where there is one.

    `keys` are those of `conf/generator`: `num_steps=30, cfg_scale=5, scheduler="unipc"`, ... Raises `UserError` for a value
    that is not allowed, and where the model cannot be loaded.
    """
    presets = [option for option in options("generator") if option != "local"]
    known = name in presets
    if not known and "/" not in name and not Path(name).expanduser().exists():
        close = difflib.get_close_matches(name, presets, n=1)
        hint = f"did you mean {close[0]!r}? " if close else ""
        raise UserError(
            f"name={name} is not allowed: {hint}one of {', '.join(presets)}, or a folder, a hub id owner/name or a "
            ".safetensors file that is there"
        )
    config = load_option("generator", name if known else "local", **(keys if known else {"model": name} | keys))
    generator_keys.check(OmegaConf.create({"generator": config}))
    return pipelines.load_generator(config).to(_device())


def load_encoder(model: str, kind: str = "hf", revision: str | None = None) -> Encoder:
    """φ by a transformers vision model, a folder or hub id; `kind="clip"` takes CLIP's projected image embeddings."""
    keys = [f"encoder.model={in_quotes(str(model))}"]
    keys += [] if revision is None else [f"encoder.revision={in_quotes(revision)}"]
    source, _ = _encoder_source(f"encoder={kind}", *keys)
    return source.load().to(_device())


def train_guide(
    images: LabelledImages, classifier: str | None = None, steps: int | None = None, seed: int = 0
) -> GuideEncoder:
    """φ by a classifier trained on `images` alone; trained once, then read from `paths.cache_dir`.

    `classifier` is an option of `conf/classifier`; it and `steps` are what `conf/encoder/guide.yaml` says where they are None.
    """
    if steps is not None and (not isinstance(steps, int) or steps < 1):
        raise UserError(f"steps={steps} is not allowed: an integer at least 1")
    keys = {"classifier": classifier, "steps": steps}
    given = (f"encoder.guide.{key}={value}" for key, value in keys.items() if value is not None)
    source, fit = _encoder_source("encoder=guide", *given)
    return source.encoder(training_set(images, fit), seed, "guide").to(_device())


def fit_prototypes(
    images: LabelledImages, encoder: Encoder, resolution: int, num_groups: int | str = 3, **keys: Any
) -> Prototypes:
    """Prototypes of `images` in the encoder's features, seen at the generator's `resolution` as the energy sees new ones.

    `num_groups="auto"` lets the silhouette choose; `keys` are the others of `conf/prototype`.
    """
    config = load_option("prototype", "hierarchical", num_groups=num_groups, **keys)
    return fit_image_prototypes(images, encoder, resolution, "crop", **{name: config[name] for name in PROTOTYPE_KEYS})


def fit_exemplars(images: LabelledImages, encoder: Encoder, resolution: int) -> Exemplars:
    """The features of `images` one by one, at the generator's `resolution`: what `energy="exemplar"` compares with."""
    return Exemplars.of(images, image_features(images, encoder, resolution, "crop"))


class ImageExpander:
    """Makes new images from PIL images, by guided img2img.

    `guidance` is an option of `conf/guidance` by name, or a `Guidance` of your own; `energy` an option of `conf/energy`, or
    an `Energy` of your own. `keys` are those of the guidance and of the energy.
    """

    def __init__(
        self,
        generator: LatentDiffusion,
        encoder: Encoder,
        prototypes: Prototypes,
        guidance: str | Guidance = "direct",
        prompt_template: str = "a photo of a {}.",
        energy: str | Energy = "hierarchical",
        exemplars: Exemplars | None = None,
        **keys: Any,
    ) -> None:
        """`prototypes` bring the class names; raises `UserError` for a key or value that is not allowed."""
        self.generator = generator
        self.class_names: list[str] = prototypes.metadata["class_names"]
        if "{}" not in prompt_template:
            raise UserError(
                f"prompt_template={prompt_template!r} is not allowed: it needs {{}} where the class name goes"
            )
        brought = {PROTOTYPES: prototypes, EXEMPLARS: exemplars}
        of_energy = {} if isinstance(energy, Energy) else _keys_of("energy", energy, keys)
        of_guidance = {name: value for name, value in keys.items() if name not in of_energy}
        if isinstance(guidance, Guidance):
            if of_guidance:
                listed = ", ".join(sorted(of_guidance))
                raise UserError(f"{listed}: give a guidance of your own its keys when you make it")
            self.guidance = guidance
        else:
            self.guidance = build(load_option("guidance", guidance, **of_guidance))
        if not isinstance(energy, Energy):
            energy = _energy(load_option("energy", energy, **of_energy), brought, generator.latent_dtype)
        self.energy = ImageEnergy(encoder.to(generator.latent_dtype), energy).to(generator.device)
        words = [name.replace("_", " ") for name in self.class_names]
        sentences = [prompt_template.replace("{}", word) for word in words]
        self.prompts = replace(generator.embed(sentences), sentences=tuple(sentences))

    def __call__(
        self,
        images: Sequence[Image.Image],
        classes: Sequence[str],
        strength: float = 0.5,
        copies: int = 1,
        seed: int = 0,
        batch_size: int = 8,
    ) -> list[Image.Image]:
        """`copies` new images of each image, image by image, each of its class; `.info` of each holds its energies and prompt.

        Copy k of image i is seeded by (seed, class, i, k) alone. Raises `UserError` for a class without a prototype.
        """
        _check_call(len(images), len(classes), strength, copies, batch_size)
        for name in classes:
            if name not in self.class_names:
                raise UserError(f"class {name!r} has no prototype: one of {', '.join(self.class_names)}")
        size = self.generator.resolution
        squares = (to_tensor(fit_image(to_rgb(image), size, "crop")) for image in images)
        posterior = self.generator.encode_all(squares)
        sampler = GuidedImg2Img(self.generator, self.guidance, self.energy, posterior, self.prompts, seed)
        items = [
            WorkItem(
                position=position,
                copy=copy,
                seed=image_seed(seed, name, str(position), copy),
                strength=strength,
                label=self.class_names.index(name),
                class_name=name,
                source=str(position),
                file_name=f"{name}/{position}__{copy:04d}.png",
            )
            for position, (_, name) in enumerate(zip(images, classes, strict=True))
            for copy in range(copies)
        ]
        made = []
        for start in range(0, len(items), batch_size):
            batch = sampler(items[start : start + batch_size])
            for position, pixels in enumerate(batch.images):
                image = to_image(pixels)
                image.info |= {name: column[position] for name, column in batch.columns.items()}
                made.append(image)
        return made


def _check_call(num_images: int, num_classes: int, strength: float, copies: int, batch_size: int) -> None:
    if num_images != num_classes or num_images == 0:
        raise UserError(
            f"{num_images} images and {num_classes} classes are not allowed: at least one image, a class each"
        )
    if not isinstance(strength, (int, float)) or not 0 < strength <= 1:
        raise UserError(f"strength={strength} is not allowed: a number above 0, at most 1")
    for name, value in (("copies", copies), ("batch_size", batch_size)):
        if not isinstance(value, int) or value < 1:
            raise UserError(f"{name}={value} is not allowed: an integer at least 1")


def _keys_of(group: str, option: str, keys: dict[str, Any]) -> dict[str, Any]:
    """Those of `keys` that an option has."""
    known = set(load_option(group, option))
    return {name: value for name, value in keys.items() if name in known}


def _energy(option: DictConfig, brought: dict[str, Any], dtype: torch.dtype) -> Energy:
    for need in needs_of(option):
        if brought[need] is None:
            raise UserError(
                f"energy={option.name} needs {need}: {need}=distdiff.fit_{need}(images, encoder, resolution)"
            )
    return build_energy(option, {need: thing and thing.to("cpu", dtype) for need, thing in brought.items()})


def _encoder_source(*overrides: str) -> tuple[EncoderSource, str]:
    """What the `encoder` keys build, as for a command; and how images are made squares by default."""
    trainer = "gpu" if torch.cuda.is_available() else "cpu"
    config = configure("expand", [*overrides, f"trainer={trainer}", "logger=none"])
    return encoder_source(config, StageCache(config.paths.cache_dir)), config.dataset.fit


def _device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"
