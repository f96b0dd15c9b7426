"""Turns the configuration into expansion jobs. A job knows which images it makes, and what identifies them."""

from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import DictConfig, OmegaConf

from distdiff.caching.fingerprint import fingerprint
from distdiff.caching.stages import StageCache
from distdiff.classification.training import TrainingSet
from distdiff.data.datasets import sentences
from distdiff.encoders.source import FirstRound, encoder_source
from distdiff.energy.config import PROTOTYPES
from distdiff.energy.config import needs_of as energy_needs_of
from distdiff.expansion.config import HARD
from distdiff.expansion.examining import Examiner
from distdiff.expansion.first_round import UnguidedRound, first_round_config
from distdiff.expansion.generators import ChosenGenerator, Generators
from distdiff.expansion.hard import hardest
from distdiff.expansion.job import ExpansionJob
from distdiff.expansion.materials import Materials
from distdiff.expansion.naming import row_name
from distdiff.expansion.selecting import SelectingJob
from distdiff.generator.config import step_counting
from distdiff.generator.kinds import AUTO
from distdiff.generator.precision import ON_CPU, resolved_dtype
from distdiff.guidance.none import in_place_of
from distdiff.keys import build, option_identity
from distdiff.methods.base import Method
from distdiff.methods.building import build_method
from distdiff.methods.config import POLICY, needs_of, reads_strength
from distdiff.methods.synthesis import Synthesizer
from distdiff.prototypes.fitting import prototype_identity
from distdiff.ranks.trainer import trainer_device
from distdiff.selection.base import Selection
from distdiff.selection.config import ALL
from distdiff.store.names import safe_name
from distdiff.store.options import StorageOptions

REVISION = 3  # raise when a change here, in a method or in the guidance changes the images


class Assembly:
    """Builds the expansion jobs of one configuration."""

    def __init__(self, config: DictConfig, cache: StageCache, generators: Generators | None = None) -> None:
        """The configurations of a run share `generators`, so that each generator is loaded only once."""
        self.config = _without_idle_guidance(_with_dtype(config))
        self.is_idle = self.config.guidance.name != config.guidance.name
        self.chose_float32 = (config.generator.dtype, self.config.generator.dtype) == (AUTO, "float32")
        self.cache = cache
        self.generators = generators or Generators()
        chosen = ChosenGenerator(self.config, self.generators)
        self.encoders = encoder_source(config, cache, self._first_round(config), chosen)

    def _first_round(self, config: DictConfig) -> FirstRound | None:
        """The unguided images that the guide learns from too, if it asks for some."""
        if (unguided := first_round_config(config)) is None:
            return None
        return UnguidedRound(Assembly(unguided, self.cache, self.generators).job)

    def job(self, data: TrainingSet, seed: int, name: str | None = None, folder: str | None = None) -> ExpansionJob:
        """The job that expands `data` by the `method`, `selection` and `expansion` keys.

        `name` is the name of the study's row and becomes part of the directory's name. By default, the
        name follows from the keys. It also does where a strength of 0 leaves the guidance without effect, because the
        unguided expansion is made then. In the place of `name`, a study's `expansion.output_dir` has `folder`.
        """
        name = row_name(self.config) if name is None or self.is_idle else name
        method = self.method(data)
        ingredients = self.ingredients(data, seed)

        def synthesizer(title: str) -> Synthesizer:
            return self.materials(data, seed, title).synthesizer(method)

        def hard_sources() -> np.ndarray:
            title = f"seed {seed}: learning order"
            order = self.encoders.learning_order(data, seed, title)
            return hardest(order, data.parts[0].labels, self.config.expansion.hard_fraction)

        path = self.directory_for(name, seed, fingerprint(ingredients), folder)
        choose = hard_sources if self.config.expansion.sources == HARD else None
        adopts = self.config.expansion.output_dir is None
        common = (name, seed, data.parts[0], ingredients, synthesizer, path, self.config, method, choose, adopts)
        selection: Selection = build(self.config.selection)
        if not selection.selects:
            return ExpansionJob(*common)
        selection.check(data.parts[0].labels)

        def examiner(title: str) -> Examiner:
            return Examiner(self.materials(data, seed, title))

        return SelectingJob(*common, selection=selection, examiner=examiner)

    def method(self, data: TrainingSet) -> Method:
        """The method that the keys choose. Raises `UserError` if it cannot make images of classes as large as these."""
        method = build_method(self.config)
        if "generator" in needs_of(self.config.method):
            sizes = np.bincount(data.parts[0].labels)
            generator = self.config.generator
            method.check(sizes[sizes > 0].tolist(), generator.num_steps, step_counting(generator))
        return method

    def materials(self, data: TrainingSet, seed: int, title: str, few: bool = False) -> Materials:
        """The objects that methods and selections may ask for. `few`: whether only a few images will be made."""
        if self.chose_float32 and "generator" in needs_of(self.config.method):
            self.generators.say([ON_CPU])
        return Materials(self.config, data, seed, title, self.cache, self.encoders, self.generators, few)

    def ingredients(self, data: TrainingSet, seed: int) -> dict[str, Any]:
        """Everything that can change the images; configuration keys that the method does not read are left out."""
        config = self.config
        needs = needs_of(config.method)
        found = {
            "revision": REVISION,
            "method": option_identity(config.method),
            "resolution": config.generator.resolution,
            "data": data.fingerprints,
            "fit": data.fit,
            "seed": seed,
        }
        if "generator" in needs:
            found["generator"] = self.generators.identity(config.generator)
        if "prompts" in needs:
            prompts = sentences(config.dataset, data.parts[0].class_names)
            found["prompts"] = prompts if config.dataset.prompts_file else [prompt for (prompt,) in prompts]
        if reads_strength(config.method):
            found["strength"] = config.expansion.strength
        if "guidance" in needs:
            found["guidance"] = option_identity(config.guidance)
        if "image_energy" in needs:
            found |= self._energy_identity(data, seed)
        if POLICY in needs:
            found[POLICY] = option_identity(config.options.augmentation[config.method.policy])
        if config.expansion.balance:
            found["balance"] = True
        if config.expansion.sources == HARD:
            guide = self.encoders.identity(data, seed)
            found["sources"] = {"hard_fraction": config.expansion.hard_fraction, "guide": guide}
        if config.selection.name != ALL:
            chosen = option_identity(config.selection)
            chosen.pop("keep_candidates", None)
            selection: Selection = build(config.selection)
            more = selection.identity(sentences(config.dataset, data.parts[0].class_names))
            found["selection"] = chosen | self._energy_identity(data, seed) | more
        return found

    def _energy_identity(self, data: TrainingSet, seed: int) -> dict[str, Any]:
        """What identifies the energy: the `energy` keys, φ, and the `prototype` keys if the energy needs prototypes."""
        identity = option_identity(self.config.energy)
        if PROTOTYPES in energy_needs_of(self.config.energy):
            identity["prototype"] = prototype_identity(self.config.prototype, data.parts[0].labels, seed)
        return {"energy": identity, "encoder": self.encoders.identity(data, seed)}

    def directory_for(self, name: str, seed: int, identity: str, folder: str | None = None) -> Path:
        """The directory of an expansion: `expansion.output_dir`, or in a study a folder inside `expansion.output_dir`.

        If `expansion.output_dir` is None, the directory is below `paths.expanded_dir`, and its name holds the dataset,
        the row and the fingerprint. The name also holds the factor if there is a selection, and the storage options if
        they are not the defaults.
        """
        if self.config.expansion.output_dir and self.config.command == "expand":
            return Path(self.config.expansion.output_dir)
        if self.config.expansion.output_dir:  # a study makes several expansions, so each gets a folder inside it
            return Path(self.config.expansion.output_dir) / f"{safe_name(folder or name)}-seed{seed}"
        # With a selection, each factor has its own directory: selecting replaces images, and no run's data may change.
        factor = "" if self.config.selection.name == ALL else f"x{self.config.expansion.factor}"
        words = StorageOptions.of(self.config).words
        parts = (safe_name(self.config.dataset.name), safe_name(name), identity, factor, words)
        return Path(self.config.paths.expanded_dir) / "-".join(filter(None, parts))


def _with_dtype(config: DictConfig) -> DictConfig:
    """The configuration with the dtype that `generator.dtype=auto` means, so that it is a part of the images' identity."""
    if config.generator.dtype != AUTO:
        return config
    accelerator = config.trainer.accelerator
    on_cpu = accelerator == "cpu" or (accelerator == "auto" and trainer_device(config.trainer).type == "cpu")
    resolved = deepcopy(config)
    OmegaConf.update(resolved, "generator.dtype", resolved_dtype(AUTO, on_cpu))
    return resolved


def _without_idle_guidance(config: DictConfig) -> DictConfig:
    """The configuration with `guidance=none` in the place of a guidance method whose keys leave it without effect."""
    guidance = in_place_of(config.guidance) if "guidance" in needs_of(config.method) else config.guidance
    if guidance is config.guidance:
        return config
    replaced = OmegaConf.to_container(config, resolve=True)
    replaced["guidance"] = guidance
    return OmegaConf.create(replaced)
