"""`expansion.tune=true tune.criterion=agreement`: the largest strength at which copies still show the class of their source."""

import json
import math
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import DictConfig, OmegaConf
from sklearn.metrics import cohen_kappa_score

from distdiff.caching.fingerprint import fingerprint
from distdiff.caching.stages import StageCache
from distdiff.classification.training import TrainingSet, training_set
from distdiff.config.command import OPTIONS, ROWS
from distdiff.console.progress import console
from distdiff.data.images import LabelledImages
from distdiff.data.readable import readable
from distdiff.data.splits.few_shot import draw_few_shot
from distdiff.data.splits.folds import take_fold
from distdiff.encoders.base import Encoder
from distdiff.expansion.assembly import Assembly
from distdiff.expansion.generators import Generators
from distdiff.prototypes.clustering import mean_directions
from distdiff.prototypes.fitting import image_features
from distdiff.ranks.trainer import trainer_device
from distdiff.ranks.world import world
from distdiff.store.options import StorageOptions
from distdiff.tuning.candidates import IMAGES, chosen_config, expanded_into, labels_of, number_of_folds
from distdiff.tuning.config import AGREEMENT
from distdiff.wording import counted

REVISION = 1  # increase when a change in this module changes agreements
STAGE, FILE = "agreements", "agreement.json"
BLIND = (
    0.25  # of the agreement on real images; features that recognise fewer copies at the smallest strength cannot choose
)


@dataclass(frozen=True)
class Agreement:
    """How well φ recognises the classes of `copies` and of `real` images, by Cohen's κ, and the number of copies.

    κ is the share of images that are recognised, corrected for chance: 1 for all, 0 for as many as by chance (Cohen, 1960).
    """

    copies: float
    real: float
    number: int


def largest_that_keeps(agreements: Mapping[float, float], retention: float) -> float:
    """The largest strength up to which copies agree with their class at least `retention` times as well as at the smallest.

    `agreements` maps strengths to Cohen's κ.

    >>> largest_that_keeps({0.3: 0.8, 0.5: 0.7, 0.7: 0.5, 0.9: 0.1}, retention=0.6)
    0.7
    >>> largest_that_keeps({0.3: 0.8, 0.5: 0.1, 0.7: 0.8}, retention=0.6)
    0.3
    """
    smallest, *larger = sorted(agreements)
    chosen = smallest
    for strength in larger:
        if agreements[strength] < retention * agreements[smallest]:
            break
        chosen = strength
    return chosen


class StrengthTuner:
    """Chooses the strength by `largest_that_keeps` among the candidates in `config.options.rows`, which differ in nothing else.

    φ recognises an image if, of the class prototypes of real images, that of its own class is nearest. Prototypes, and φ if it
    is trained, come from the images `data` without the fold that holds the copy's source: they have seen neither the copy
    nor its source (cross-fitting). A copy may also be missed for its style, which hardly depends on the strength; so what
    counts is how agreement falls from the smallest strength on, not how high it is. Where features recognise hardly any copy at
    the smallest strength, `expansion.strength` stays. Agreements are kept in the cache; the images are removed. No classifier
    is trained on copies. Raises `UserError` if a class has a single image.
    """

    def __init__(self, config: DictConfig, data: TrainingSet, cache: StageCache, generators: Generators) -> None:
        self.config, self.data, self.cache = config, data, cache
        self.num_folds = number_of_folds(config, data.parts[0])
        self.candidates: dict[str, DictConfig] = dict(config[OPTIONS][ROWS].items())
        self.labels = labels_of(self.candidates)
        self.generators = generators

    def chosen(self) -> tuple[DictConfig, dict[str, Any]]:
        """The configuration with the chosen strength, and a record of the choice, which is printed too."""
        console.print(
            f"tuning: {counted(len(self.candidates), 'strength')}, {len(self._sources) * self._factor:,} copies at each, judged "
            f"by features that have seen neither a copy nor its source ({self.num_folds} folds)"
        )
        found = {name: self._agreement(name) for name in self.candidates}
        by_strength = {float(self.candidates[name].expansion.strength): name for name in found}
        first = found[by_strength[min(by_strength)]]
        chosen = None
        if first.copies >= BLIND * first.real:
            of_strength = {strength: found[name].copies for strength, name in by_strength.items()}
            chosen = by_strength[largest_that_keeps(of_strength, self.config.tune.retention)]
        record = self._record([(self.labels[by_strength[key]], found[by_strength[key]]) for key in sorted(by_strength)])
        record["chosen"] = None if chosen is None else self.labels[chosen]
        for line in _lines(record, self.config.expansion.strength):
            console.print(line)
        return chosen_config(self.config if chosen is None else self.candidates[chosen], self.config), record

    @cached_property
    def _sources(self) -> TrainingSet:
        """The images of which copies are made: about as many of each class, and in all not many more than `tune.images`."""
        real = self.data.parts[0]
        per_class = math.ceil(self.config.tune.images / len(real.class_names))
        return training_set(draw_few_shot(real, per_class, self.config.seed), self.data.fit)

    @property
    def _factor(self) -> int:
        return math.ceil(self.config.tune.images / len(self._sources))

    @cached_property
    def _folds(self) -> list[tuple[TrainingSet, LabelledImages]]:
        """For each fold, the images outside it and those in it."""
        parts = [
            take_fold(self.data.parts[0], self.num_folds, fold, self.config.seed) for fold in range(self.num_folds)
        ]
        return [(training_set(rest, self.data.fit), readable(held_out, "training")[0]) for rest, held_out in parts]

    def _agreement(self, name: str) -> Agreement:
        config, label = self._pilot(self.candidates[name]), self.labels[name]
        assembly, seed = Assembly(config, self.cache, self.generators), self.config.seed
        ingredients = {
            "revision": REVISION,
            "expansion": assembly.ingredients(self._sources, seed),
            "factor": self._factor,
            "encoding": asdict(StorageOptions.of(config).encoding),
            "folds": [held_out.identity for _, held_out in self._folds],
            "encoders": [assembly.encoders.identity(rest, seed) for rest, _ in self._folds],
        }
        scratch = self.cache.root / IMAGES / fingerprint(ingredients)

        def build(folder: Path | None) -> None:
            title = f"tune: {label}"
            copies = expanded_into(scratch, config, self._sources, seed, title, self.cache, self.generators)
            agreement = self._measured(assembly, copies, title)
            if folder is not None:
                (folder / FILE).write_text(json.dumps(asdict(agreement)), encoding="utf-8")

        folder = self.cache.get_together(STAGE, ingredients, build)
        world().once(lambda: shutil.rmtree(scratch, ignore_errors=True))
        return Agreement(**world().once(lambda: json.loads((folder / FILE).read_text(encoding="utf-8"))))

    def _pilot(self, candidate: DictConfig) -> DictConfig:
        """The candidate's configuration with the number of copies of the search."""
        config = candidate.copy()
        OmegaConf.set_struct(config, False)
        config.expansion.factor, config.expansion.balance, config.expansion.sources = self._factor, False, "all"
        return config

    def _measured(self, assembly: Assembly, copies: LabelledImages, title: str) -> Agreement:
        """Looks at the copies of each fold's images, and at these, with features of the other folds."""
        on_copies, on_real = [], []
        for number, (rest, held_out) in enumerate(self._folds, 1):
            encoder = assembly.encoders.encoder(rest, self.config.seed, f"{title}, fold {number}: guide")
            own = copies.select(_copies_of(held_out, copies))
            found = world().once(lambda rest=rest, new=(own, held_out), encoder=encoder: self._seen(encoder, rest, new))
            on_copies += found[0]
            on_real += found[1]
        return Agreement(_kappa(on_copies), _kappa(on_real), len(on_copies))

    def _seen(self, encoder: Encoder, rest: TrainingSet, new: Sequence[LabelledImages]) -> list[list[tuple[int, int]]]:
        """The class of each image of the sets `new`, and that of `rest` whose prototype is nearest to it."""
        encoder.to(trainer_device(self.config.trainer), torch.float32)
        size, fit = self.config.generator.resolution, self.data.fit
        real = rest.parts[0]
        prototypes = mean_directions(image_features(real, encoder, size, fit), real.labels)
        found = []
        for images in new:
            nearest = (image_features(images, encoder, size, fit) @ prototypes.T).argmax(1) if len(images) else []
            found.append(list(zip(images.labels.tolist(), map(int, nearest), strict=True)))
        return found

    def _record(self, found: Sequence[tuple[str, Agreement]]) -> dict[str, Any]:
        """What was found as plain values, for files."""
        return {
            "criterion": AGREEMENT,
            "retention": self.config.tune.retention,
            "real": found[0][1].real,
            "candidates": [
                {"candidate": label, "agreement": each.copies, "images": each.number} for label, each in found
            ],
        }


def _copies_of(sources: LabelledImages, copies: LabelledImages) -> list[int]:
    """The positions of the copies of these sources."""
    names = {f"{sources.class_names[label]}/{key}" for label, key in zip(sources.labels, sources.keys, strict=True)}
    return [position for position, (source, *_) in enumerate(copies.sources) if source in names]


def _kappa(pairs: Sequence[tuple[int, int]]) -> float:
    """Cohen's κ of pairs of a class and the class that was seen in its place; 0 where it is not defined."""
    labels, seen = zip(*pairs, strict=True)
    return float(np.nan_to_num(cohen_kappa_score(labels, seen)))


def _lines(record: Mapping[str, Any], given: Any) -> Iterator[str]:
    """The lines that say what was found and chosen; `given` is the job's own `expansion.strength`."""
    width = max(len(each["candidate"]) for each in record["candidates"])
    yield f"tuning: how well features recognise the class of copies, by Cohen's kappa ({record['real']:.2f} for real images)"
    for each in record["candidates"]:
        yield f"  {each['candidate']:<{width}}  {each['agreement']:.2f}  ({counted(each['images'], 'image')})"
    if record["chosen"] is None:
        yield (
            f"chosen: nothing, expansion.strength={given} stays: features recognise hardly any copy even at the smallest "
            "strength; another encoder may see more"
        )
    else:
        yield (
            f"chosen: {record['chosen']}, the largest up to which kappa is at least {record['retention']:g} times that at the "
            "smallest"
        )
