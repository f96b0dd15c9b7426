"""DistDiff in a notebook: load a generator, fit prototypes on a folder, expand PIL images."""

import difflib
import inspect
from collections.abc import Callable, Sequence
from copy import copy, deepcopy
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import DictConfig, OmegaConf
from PIL import Image

from distdiff.caching.stages import StageCache
from distdiff.classification.training import training_set
from distdiff.commands.configuration import configure, load_option
from distdiff.console.output import console
from distdiff.data.images import LabelledImages
from distdiff.data.pixels import to_image
from distdiff.data.prompts import DEFAULT_TEMPLATE, filled
from distdiff.data.readable import readable
from distdiff.data.reading.decoding import to_rgb
from distdiff.data.sources.imagefolder import read_class_folders
from distdiff.encoders.base import Encoder
from distdiff.encoders.generator import NAME as GENERATOR
from distdiff.encoders.generator import GeneratorEncoder
from distdiff.encoders.guide import GuideEncoder
from distdiff.encoders.source import EncoderSource, encoder_source
from distdiff.energy.assembling import build_energy
from distdiff.energy.base import Energy
from distdiff.energy.config import EXEMPLARS, PROTOTYPES, needs_of
from distdiff.energy.images import ImageEnergy
from distdiff.errors import UserError
from distdiff.expansion.plan import ExpansionPlan
from distdiff.generator import config as generator_keys
from distdiff.generator import pipelines
from distdiff.generator.inversion import inverter
from distdiff.generator.inversions import ComputedInversions
from distdiff.generator.kinds import AUTO
from distdiff.generator.latent_diffusion import LatentDiffusion
from distdiff.generator.latents import Latents
from distdiff.generator.precision import ON_CPU
from distdiff.guidance.base import Guidance
from distdiff.guidance.config import REAL_FEATURES, REAL_LATENTS
from distdiff.guidance.config import needs_of as guidance_needs_of
from distdiff.guidance.real import RealFeatures, RealLatents
from distdiff.keys import NAME, TARGET, build
from distdiff.keys.suggesting import in_quotes
from distdiff.methods.base import Method
from distdiff.methods.synthesis import Synthesizer
from distdiff.option_files.search_path import OURS
from distdiff.prototypes.exemplars import Exemplars
from distdiff.prototypes.fitting import fit_image_prototypes, image_features
from distdiff.prototypes.hierarchical import Prototypes
from distdiff.store.filtering import RowFilter
from distdiff.store.reading import read_expanded
from distdiff.store.torch_dataset import ExpandedImages

STRENGTH = 0.5
PROTOTYPE_KEYS = ("num_groups", "linkage", "max_groups", "max_clustered", "class_level", "group_level")


def load_images(root: str) -> LabelledImages:
    """The images of the folder `root`, which has one folder per class. Images are read only when they are needed.

    Raises `UserError` if there are no images.
    """
    return read_class_folders(root, key="root")


def load_generator(name: str, **keys: Any) -> LatentDiffusion:
    """Loads the generator `name` onto a GPU or, if there is none, onto the CPU.

    `name` is an option of `conf/generator`, or the folder, hub id or checkpoint file of a pipeline. `keys` are keys of
    `conf/generator`, such as `num_steps=30, cfg_scale=5, scheduler="unipc"`. Raises `UserError` if a value is not
    allowed, or if the model cannot be loaded.
    """
    presets = [option for option in OURS.options("generator") if option != "local"]
    known = name in presets
    if not known and "/" not in name and not Path(name).expanduser().exists():
        close = difflib.get_close_matches(name, presets, n=1)
        hint = f"did you mean {close[0]!r}? " if close else ""
        raise UserError(
            f"name={name} is not allowed: {hint}one of {', '.join(presets)}, or a hub id owner/name, or an existing folder "
            "or .safetensors file"
        )
    config = load_option("generator", name if known else "local", **(keys if known else {"model": name} | keys))
    generator_keys.check(OmegaConf.create({"generator": config}))
    if config.dtype == AUTO and _device() == "cpu":
        console.print(ON_CPU)
    generator = pipelines.load_generator(config, _device()).to(_device())
    for line in generator.check_resolution():
        console.print(line)
    return generator


def load_encoder(
    model: str | None = None,
    kind: str = "hf",
    revision: str | None = None,
    generator: LatentDiffusion | None = None,
) -> Encoder:
    """The encoder φ from `model`, the folder or hub id of a transformers vision model.

    `kind="clip"` selects CLIP's projected image embeddings. `kind="efficientnet_lite0"` has weights of its own and no
    `model`. `kind="generator"` has the features of a `generator` that is loaded. `revision` is a branch, tag or commit on the
    hub. Without a `model`, it is that of `conf/encoder/<kind>.yaml`.
    """
    if generator is not None:
        if kind != GENERATOR:
            raise UserError(f"generator is not allowed with kind={kind}: it is for kind='{GENERATOR}'")
        if not isinstance(generator, LatentDiffusion):
            raise UserError(f"generator={generator!r} is not allowed: what distdiff.load_generator(...) returns")
        option = load_option("encoder", GENERATOR)
        return GeneratorEncoder(lambda: generator, option.noise_level, option.pool_size)
    keys = [] if model is None else [f"encoder.model={in_quotes(str(model))}"]
    keys += [] if revision is None else [f"encoder.revision={in_quotes(revision)}"]
    source, _ = _encoder_source(f"encoder={kind}", *keys)
    return source.load().to(_device())


def train_guide(
    images: LabelledImages,
    classifier: str | None = None,
    steps: int | None = None,
    seed: int = 0,
    members: int | None = None,
) -> GuideEncoder:
    """The encoder φ from a classifier that is trained on `images` alone, or from several (`members`).

    The classifier is trained once. A later call with the same arguments reads the classifier from the folder
    `paths.cache_dir`. `classifier` is an option of `conf/classifier`. Where `classifier`, `steps` or `members` is None,
    `conf/encoder/guide.yaml` gives the value.
    """
    if steps is not None and (not isinstance(steps, int) or steps < 1):
        raise UserError(f"steps={steps} is not allowed: an integer at least 1")
    keys = {"classifier": classifier, "steps": steps, "members": members}
    given = (f"encoder.guide.{key}={value}" for key, value in keys.items() if value is not None)
    source, fit = _encoder_source("encoder=guide", *given)
    return source.encoder(training_set(images, fit), seed, "guide").to(_device())


def fit_prototypes(
    images: LabelledImages, encoder: Encoder, resolution: int, num_groups: int | str = 3, **keys: Any
) -> Prototypes:
    """Fits prototypes to the encoder's features of `images`.

    `resolution` is the generator's resolution, at which the features of `images` are computed. `num_groups="auto"`
    chooses the number of groups by the silhouette score. `keys` are any other keys of `conf/prototype`. Images that
    cannot be read are left out and said; raises `UserError` if those are all images of a class.
    """
    images, _ = readable(images, "training")
    config = load_option("prototype", "hierarchical", num_groups=num_groups, **keys)
    return fit_image_prototypes(images, encoder, resolution, "crop", **{name: config[name] for name in PROTOTYPE_KEYS})


def fit_exemplars(images: LabelledImages, encoder: Encoder, resolution: int) -> Exemplars:
    """The encoder's features of each of `images` at the generator's `resolution`, for `ImageExpander(energy="exemplar")`.

    Images that cannot be read are left out, as in `fit_prototypes`.
    """
    images, _ = readable(images, "training")
    return Exemplars.of(images, image_features(images, encoder, resolution, "crop"))


class ImageExpander:
    """Makes new images from PIL images, unguided unless `guidance` says otherwise.

    `guidance`, `energy` and `method` are names of options of `conf/guidance`, `conf/energy` and `conf/method`, or objects of
    your own. `keys` are keys of the options that are given by name.
    """

    def __init__(
        self,
        generator: LatentDiffusion,
        encoder: Encoder,
        prototypes: Prototypes,
        guidance: str | Guidance = "none",
        prompt_template: str = DEFAULT_TEMPLATE,
        energy: str | Energy = "hierarchical",
        exemplars: Exemplars | None = None,
        method: str | Method = "img2img",
        **keys: Any,
    ) -> None:
        """Only the classes of `prototypes` can be expanded. `encoder` and `energy` are copied, not changed.

        Raises `UserError` for a key or value that is not allowed.
        """
        self.generator = generator
        self.class_names: list[str] = prototypes.metadata["class_names"]
        if "{}" not in prompt_template:
            raise UserError(
                f"prompt_template={prompt_template!r} is not allowed: it needs {{}} where the class name goes"
            )
        brought = {PROTOTYPES: prototypes, EXEMPLARS: exemplars}
        self.method, keys = _made("method", method, keys)
        policy = getattr(self.method, "policy", None)
        self._policy = None if policy is None else _policy(policy)
        if not isinstance(energy, Energy):
            own = _keys_of("energy", energy, keys)
            energy = _energy(load_option("energy", energy, **own), brought, generator.latent_dtype)
            keys = {name: value for name, value in keys.items() if name not in own}
        self.guidance, group_size = _guidance(guidance, keys, exemplars)
        if group_size is not None and "guidance" in inspect.signature(self.method.synthesizer).parameters:
            self.method = copy(self.method)
            self.method.group_size = group_size
        self._exemplars = exemplars and exemplars.to("cpu", generator.latent_dtype)
        # Copies: the user's own objects keep their device and precision.
        encoder, energy = deepcopy(encoder).to(generator.latent_dtype), deepcopy(energy)
        self.energy = ImageEnergy(encoder, energy).to(generator.device)
        words = [name.replace("_", " ") for name in self.class_names]
        sentences = [filled(prompt_template, word) for word in words]
        for line in generator.check_prompts([[one] for one in sentences], self.class_names, "prompt_template"):
            console.print(line)
        self.prompts = replace(generator.embed(sentences), sentences=tuple(sentences))

    def __call__(
        self,
        images: Sequence[Image.Image] | None = None,
        classes: Sequence[str] = (),
        strength: float | None = None,
        copies: int = 1,
        seed: int = 0,
        batch_size: int = 8,
    ) -> list[Image.Image]:
        """Makes `copies` new images from each of `images`. The copies of one image are next to each other in the list.

        `classes` has the class of each image. For a method that needs no sources (`text2img`), give `classes` alone.
        `strength` is how far a new image may be from its source; None means `STRENGTH`. It is refused for a method that does
        not read it. `.info` of each new image holds the image's energies, prompt and sources, and any soft label. The seed of
        copy k of image i depends only on (seed, class, i, k). Raises `UserError` for a class without a prototype.
        """
        if images is None and self.method.num_sources:
            raise UserError("images are missing: this method makes new images from given ones")
        if strength is not None and not self.method.reads_strength:
            own = f"; give ImageExpander strengths=[{strength}]" if hasattr(self.method, "strengths") else ""
            raise UserError(f"strength={strength} is not allowed: {type(self.method).__name__} does not read it{own}")
        strength = STRENGTH if strength is None else strength
        _check_call(len(classes) if images is None else len(images), len(classes), strength, copies, batch_size)
        for name in classes:
            if name not in self.class_names:
                raise UserError(f"class {name!r} has no prototype: one of {', '.join(self.class_names)}")
        given = self._given(images, classes)
        plan = ExpansionPlan(given, copies, strength, seed, method=self.method)
        wanted = np.arange(len(plan)).reshape(copies, len(classes)).T.ravel()  # image by image
        synthesizer = self._synthesizer(given, seed)
        made: dict[int, Image.Image] = {}
        for indices in plan.batches(wanted, batch_size, synthesizer.group):
            items = [plan[int(index)] for index in indices]
            batch = synthesizer(items)
            for position, (index, item) in enumerate(zip(indices.tolist(), items, strict=True)):
                image = made[index] = to_image(batch.images[position])
                image.info |= {name: column[position] for name, column in batch.columns.items()}
                image.info["sources"] = list(item.sources)
                if item.soft_label:
                    image.info["soft_label"] = {self.class_names[label]: weight for label, weight in item.soft_label}
        return [made[index] for index in wanted.tolist()]

    def _given(self, images: Sequence[Image.Image] | None, classes: Sequence[str]) -> LabelledImages:
        """The images as a labelled set, in which an image's key is its index."""
        return LabelledImages(
            name="given",
            class_names=tuple(self.class_names),
            labels=np.array([self.class_names.index(name) for name in classes], dtype=np.int64),
            keys=tuple(map(str, range(len(classes)))),
            read=None if images is None else lambda index: to_rgb(images[index]),
            indices=np.arange(len(classes)),
        )

    def _synthesizer(self, images: LabelledImages, seed: int) -> Synthesizer:
        """The method's synthesizer, built from the materials that the method asks for."""
        size = self.generator.resolution

        @cache
        def latents() -> Latents:
            return self.generator.encode_all(images.stream(size, "crop"))

        def guidance() -> Guidance:
            if isinstance(self.guidance, Guidance):
                return self.guidance
            real = {
                REAL_FEATURES: lambda: RealFeatures(self._exemplars, len(self.class_names)),
                REAL_LATENTS: lambda: RealLatents(latents(), images.labels, images.keys),
            }
            return build(self.guidance, *(real[need]() for need in guidance_needs_of(self.guidance)))

        def inversions() -> ComputedInversions:
            steps = self.method.inversion_steps
            return ComputedInversions(inverter(self.generator, latents, self.prompts, images.labels, steps))

        materials: dict[str, Callable[[], Any]] = {
            "seed": lambda: seed,
            "squares": lambda: images.squares(size, "crop", keep=False),
            "generator": lambda: self.generator,
            "prompts": lambda: self.prompts,
            "latents": latents,
            "inversions": inversions,
            "guidance": guidance,
            "image_energy": lambda: self.energy,
            "policy": lambda: build(self._policy),
        }
        needs = inspect.signature(self.method.synthesizer).parameters
        return self.method.synthesizer(**{need: materials[need]() for need in needs})


def load_expanded(
    directory: str | Path, transform: Callable[[Image.Image], Any] | None = None, where: str | None = None
) -> ExpandedImages:
    """A finished expanded dataset as a torch `Dataset` of pairs (image, target), as `ExpandedImages` explains.

    `where` is a condition on the dataset's metadata, such as `"energy_after < 1.1"`. Raises `UserError` if `directory`
    is not a finished expanded dataset, or if `where` is not a condition or is true for no image.
    """
    return ExpandedImages(read_expanded(directory, where=RowFilter.of("where", where)), transform)


def _check_call(num_images: int, num_classes: int, strength: float, copies: int, batch_size: int) -> None:
    if num_images != num_classes or num_images == 0:
        raise UserError(
            f"{num_images} images and {num_classes} classes are not allowed: give at least one image, and a class for each"
        )
    if not isinstance(strength, (int, float)) or not 0 < strength <= 1:
        raise UserError(f"strength={strength} is not allowed: a number above 0, at most 1")
    for name, value in (("copies", copies), ("batch_size", batch_size)):
        if not isinstance(value, int) or value < 1:
            raise UserError(f"{name}={value} is not allowed: an integer at least 1")


def _made(group: str, option: Any, keys: dict[str, Any], take_all: bool = False) -> tuple[Any, dict[str, Any]]:
    """Returns (object, the `keys` that the object did not take).

    If `option` is a name, the object is built from the option with this name. It takes all of `keys` if `take_all` is
    true, and otherwise only those that are keys of its option. If `option` is not a name, it is the object itself, and
    takes no keys. Raises `UserError` if there are keys although `option` is not a name and `take_all` is true.
    """
    if not isinstance(option, str):
        if take_all and keys:
            raise UserError(f"{', '.join(sorted(keys))}: give a {group} of your own its keys when you make it")
        return option, keys
    own = keys if take_all else _keys_of(group, option, keys)
    made = build(load_option(group, option, **own))
    return made, {name: value for name, value in keys.items() if name not in own}


def _guidance(
    guidance: str | Guidance, keys: dict[str, Any], exemplars: Exemplars | None
) -> tuple[Guidance | DictConfig, int | None]:
    """The guidance method, and how many copies of a source it makes together (None: each alone).

    A named method that needs the real images is returned as its option's keys, because they are known only when the
    expander is called. Raises `UserError` for features of real images that the method needs and nobody gave.
    """
    if not isinstance(guidance, str):
        found, _ = _made("guidance", guidance, keys, take_all=True)
        return found, getattr(found, "group_size", None)
    option = load_option("guidance", guidance, **keys)
    needs = guidance_needs_of(option)
    if REAL_FEATURES in needs and exemplars is None:
        raise UserError(
            f"guidance={guidance} needs exemplars: exemplars=distdiff.fit_exemplars(images, encoder, resolution)"
        )
    return option if needs else build(option), option.get("group_size")


def _policy(name: str) -> DictConfig:
    """The keys of the augmentation policy `name`. Raises `UserError` if `method=augmentation` does not allow `name`."""
    config = configure("expand", ["method=augmentation", f"method.policy={in_quotes(name)}", "logger=none"])
    return config.options.augmentation[name]


def _keys_of(group: str, option: str, keys: dict[str, Any]) -> dict[str, Any]:
    """The entries of `keys` whose names are keys of the option `option` of `group`."""
    known = set(load_option(group, option)) - {NAME, TARGET}
    return {name: value for name, value in keys.items() if name in known}


def _energy(option: DictConfig, brought: dict[str, Any], dtype: torch.dtype) -> Energy:
    for need in needs_of(option):
        if brought[need] is None:
            raise UserError(
                f"energy={option.name} needs {need}: {need}=distdiff.fit_{need}(images, encoder, resolution)"
            )
    return build_energy(option, {need: thing and thing.to("cpu", dtype) for need, thing in brought.items()})


def _encoder_source(*overrides: str) -> tuple[EncoderSource, str]:
    """The encoder source that `overrides` configure, and the default `dataset.fit`, the way to make images square."""
    trainer = "gpu" if torch.cuda.is_available() else "cpu"
    config = configure("expand", [*overrides, f"trainer={trainer}", "logger=none"])
    return encoder_source(config, StageCache(config.paths.cache_dir)), config.dataset.fit


def _device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"
