"""`tune.criterion=agreement`: chooses the largest strength at which copies still show the class of their source."""

import json
import math
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from omegaconf import DictConfig

from distdiff.caching.fingerprint import fingerprint
from distdiff.caching.stages import StageCache
from distdiff.classification.training import TrainingSet, training_set
from distdiff.config.command import OPTIONS, ROWS
from distdiff.console.progress import console
from distdiff.data.images import LabelledImages
from distdiff.data.splits.few_shot import draw_few_shot
from distdiff.encoders.base import Encoder
from distdiff.expansion.assembly import Assembly
from distdiff.expansion.first_round import unguided
from distdiff.expansion.generators import Generators
from distdiff.prototypes.clustering import mean_directions
from distdiff.prototypes.fitting import image_features
from distdiff.ranks.trainer import trainer_device
from distdiff.ranks.world import world
from distdiff.store.options import StorageOptions
from distdiff.tuning.candidates import (
    IMAGES,
    apart_from_fold,
    chosen_config,
    expanded_into,
    number_of_folds,
    refuse_other_files,
)
from distdiff.tuning.config import AGREEMENT
from distdiff.wording import counted

REVISION = 1  # increase when a change in this module changes agreements
STAGE, FILE = "agreements", "agreements.json"
REAL = "real"
BLIND = 0.25  # the least share of the agreement on real images that copies at the smallest strength must have
CHANCE = 2  # standard errors by which agreement must exceed that by chance


class Seen(NamedTuple):
    """The class of an image, the class that φ sees in it, and the real image that it was made from, or that it is."""

    label: int
    seen: int
    source: str


@dataclass(frozen=True)
class Agreement:
    """How well φ recognises the classes of so many `images`, by Cohen's κ (1960): 1 for all, 0 for as many as by chance.

    `error` is the standard error of κ, and `chance` that of a κ of zero. Copies of one source are alike, so that both are by
    the number of sources, not of images.
    """

    kappa: float
    error: float
    chance: float
    images: int

    @classmethod
    def of(cls, found: Sequence[Seen]) -> "Agreement":
        if not found:
            return cls(0.0, 0.0, 0.0, 0)
        labels, seen = (np.array([getattr(each, name) for each in found]) for name in ("label", "seen"))
        size = max(labels.max(), seen.max()) + 1
        shares = [np.bincount(each, minlength=size) / len(found) for each in (labels, seen)]
        by_chance = float(shares[0] @ shares[1])
        by_source: dict[str, list[bool]] = {}
        for each in found:
            by_source.setdefault(each.source, []).append(each.label == each.seen)
        right = np.array([np.mean(own) for own in by_source.values()])
        error = right.std(ddof=1) / math.sqrt(len(right)) if len(right) > 1 else 0.0
        if by_chance == 1:  # a single class, seen in every image
            return cls(0.0, 0.0, 0.0, len(found))
        agreeing = float((labels == seen).mean())
        chance = math.sqrt(by_chance / (1 - by_chance) / len(right))
        return cls((agreeing - by_chance) / (1 - by_chance), float(error) / (1 - by_chance), chance, len(found))

    @property
    def is_by_chance(self) -> bool:
        """Whether φ may recognise no more images than by chance."""
        return self.kappa <= CHANCE * self.chance


def largest_that_keeps(kappas: Mapping[float, float], retention: float) -> float:
    """The largest strength up to which κ is at least `retention` times that of the smallest strength.

    >>> largest_that_keeps({0.3: 0.8, 0.5: 0.7, 0.7: 0.5, 0.9: 0.1}, retention=0.6)
    0.7
    >>> largest_that_keeps({0.3: 0.8, 0.5: 0.1, 0.7: 0.8}, retention=0.6)
    0.3
    """
    smallest, *larger = sorted(kappas)
    chosen = smallest
    for strength in larger:
        if kappas[strength] < retention * kappas[smallest]:
            break
        chosen = strength
    return chosen


class StrengthTuner:
    """Chooses the strength of the job by `largest_that_keeps`, among those of the candidates in `config.options.rows`.

    Copies are unguided and none are selected, because φ may guide and select, and would then judge what it has made. φ
    recognises an image if, of the class prototypes of real images, that of its own class is nearest. Prototypes, and φ if it is
    trained, come from the images `data` without the fold that holds the copy's source: they have seen neither the copy
    nor its source (cross-fitting). κ at the smallest strength is what the others are compared with, because copies may also
    be missed for the generator's style. Where φ recognises few of the real images, or few copies at the smallest
    strength, the job's own `expansion.strength` stays. Agreements are kept in the cache; the images are removed. Raises
    `UserError` if a class has a single image.
    """

    def __init__(self, config: DictConfig, data: TrainingSet, cache: StageCache, generators: Generators) -> None:
        self.config, self.data, self.cache, self.generators = config, data, cache, generators
        refuse_other_files(config)
        self.num_folds = number_of_folds(config, data.parts[0])
        by_strength = {float(each.expansion.strength): each for each in config[OPTIONS][ROWS].values()}
        self.candidates: dict[float, DictConfig] = {strength: by_strength[strength] for strength in sorted(by_strength)}
        self.encoders = Assembly(config, cache, generators).encoders

    def chosen(self) -> tuple[DictConfig, dict[str, Any]]:
        """The job's configuration with the chosen strength, and a record of the choice, which is printed too."""
        guides = f"; {counted(self.num_folds, 'guide')} are trained" if self.encoders.trains else ""
        console.print(
            f"tuning: {counted(len(self.candidates), 'strength')}, {len(self.sources) * self.factor:,} unguided copies at each, "
            f"seen by features of the other images ({self.num_folds} folds{guides})"
        )
        found = self._found()
        real, copies = found.pop(REAL), {float(strength): each for strength, each in found.items()}
        smallest = copies[min(copies)]
        strength = None
        if not (real.is_by_chance or smallest.is_by_chance or smallest.kappa < BLIND * real.kappa):
            kappas = {strength: each.kappa for strength, each in copies.items()}
            strength = largest_that_keeps(kappas, self.config.tune.retention)
        record = self._record(real, copies, strength)
        for line in lines_of(record, self.config.expansion.strength):
            console.print(line)
        return chosen_config(self.config if strength is None else self.candidates[strength], self.config), record

    @cached_property
    def sources(self) -> TrainingSet:
        """The images of which copies are made: `tune.images` or fewer, as many of each class as possible, but at least one."""
        real = self.data.parts[0]
        per_class = max(1, self.config.tune.images // len(real.class_names))
        drawn = draw_few_shot(replace(real, unreadable=()), per_class, self.config.seed)
        return training_set(drawn, self.data.fit)

    @property
    def factor(self) -> int:
        """The number of copies of each source."""
        return math.ceil(self.config.tune.images / len(self.sources))

    @cached_property
    def folds(self) -> list[tuple[TrainingSet, LabelledImages]]:
        """For each fold, the images outside it and those in it."""
        return [apart_from_fold(self.data, self.num_folds, fold, self.config.seed) for fold in range(self.num_folds)]

    def _found(self) -> dict[str, Agreement]:
        """The agreement of the real images, under `REAL`, and of the copies at each strength."""
        seed, own = self.config.seed, {"balance": False, "sources": "all", "factor": self.factor}
        pilots = {strength: unguided(each, **own) for strength, each in self.candidates.items()}
        assemblies = {strength: Assembly(each, self.cache, self.generators) for strength, each in pilots.items()}
        ingredients = {
            "revision": REVISION,
            "expansions": [assembly.ingredients(self.sources, seed) for assembly in assemblies.values()],
            "factor": self.factor,
            "encoding": asdict(StorageOptions.of(self.config).encoding),
            "folds": [[*rest.fingerprints, held_out.identity] for rest, held_out in self.folds],
            "encoders": [self.encoders.identity(rest, seed) for rest, _ in self.folds],
        }
        scratch = self.cache.root / IMAGES / fingerprint(ingredients)

        def build(folder: Path | None) -> None:
            copies = {
                str(strength): expanded_into(
                    *(scratch / str(strength), pilot, self.sources, seed),
                    *(f"tune: strength {strength}", self.cache, self.generators),
                )
                for strength, pilot in pilots.items()
            }
            found = {name: asdict(Agreement.of(each)) for name, each in self._seen(copies).items()}
            if folder is not None:
                (folder / FILE).write_text(json.dumps(found), encoding="utf-8")

        folder = self.cache.get_together(STAGE, ingredients, build)
        world().once(lambda: shutil.rmtree(scratch, ignore_errors=True))
        read = world().once(lambda: json.loads((folder / FILE).read_text(encoding="utf-8")))
        return {name: Agreement(**each) for name, each in read.items()}

    def _seen(self, copies: Mapping[str, LabelledImages]) -> dict[str, list[Seen]]:
        """What φ sees in the real images, under `REAL`, and in the copies at each strength, without the fold that they are of."""
        found: dict[str, list[Seen]] = {name: [] for name in (REAL, *copies)}
        encoder, features = None, None
        for number, (rest, held_out) in enumerate(self.folds, 1):
            if encoder is None or self.encoders.trains:
                encoder = self.encoders.encoder(rest, self.config.seed, f"tune: fold {number}: guide")
                features = None
            own, features = self._seen_in_fold(encoder, features, rest, held_out, copies)
            for name, each in own.items():
                found[name] += each
        return found

    def _seen_in_fold(
        self,
        encoder: Encoder,
        features: torch.Tensor | None,
        rest: TrainingSet,
        held_out: LabelledImages,
        copies: Mapping[str, LabelledImages],
    ) -> tuple[dict[str, list[Seen]], torch.Tensor | None]:
        """What φ sees in the images of a fold and in their copies; and the features (n, D) of all real images.

        Features of the real images are computed if they are not given. The leading rank looks, and all ranks get its result, but
        for the features.
        """
        known = features

        def look() -> dict[str, list[Seen]]:
            nonlocal known
            encoder.to(trainer_device(self.config.trainer), torch.float32)
            size, fit, real = self.config.generator.resolution, self.data.fit, self.data.parts[0]
            if known is None:
                known = image_features(real, encoder, size, fit)
            place = {name: position for position, name in enumerate(real.names)}
            outside = [place[name] for name in rest.parts[0].names]
            present, numbers = np.unique(real.labels[outside], return_inverse=True)
            prototypes = mean_directions(known[outside], numbers)

            def seen(images: LabelledImages, new: torch.Tensor, sources: Sequence[str]) -> list[Seen]:
                nearest = present[(new @ prototypes.T).argmax(1).numpy()]
                return [Seen(*each) for each in zip(images.labels.tolist(), nearest.tolist(), sources, strict=True)]

            inside = held_out.names
            in_fold = {*inside}
            found = {REAL: seen(held_out, known[[place[name] for name in inside]], inside)}
            for name, images in copies.items():
                own = [position for position, (source, *_) in enumerate(images.sources) if source in in_fold]
                found[name] = []
                if own:
                    chosen = images.select(own)
                    new = image_features(chosen, encoder, size, fit)
                    found[name] = seen(chosen, new, [images.sources[position][0] for position in own])
            return found

        return world().once(look), known

    def _record(self, real: Agreement, copies: Mapping[float, Agreement], strength: float | None) -> dict[str, Any]:
        """What was found and chosen as plain values, for files."""

        def entry(agreement: Agreement) -> dict[str, Any]:
            return {"agreement": agreement.kappa, "standard_error": agreement.error, "images": agreement.images}

        return {
            "criterion": AGREEMENT,
            "retention": self.config.tune.retention,
            "strength": strength,
            "agreement": None if strength is None else copies[strength].kappa,
            "real": entry(real),
            "candidates": [{"strength": each, **entry(agreement)} for each, agreement in copies.items()],
        }


def lines_of(record: Mapping[str, Any], given: Any) -> Iterator[str]:
    """The lines that say what was found and chosen; `given` is the job's own `expansion.strength`."""
    yield "tuning: how well features recognise the class of images, by Cohen's kappa ± standard error"
    names = ["real images", *(f"copies at strength {each['strength']:g}" for each in record["candidates"])]
    width = max(map(len, names))
    for name, each in zip(names, (record["real"], *record["candidates"]), strict=True):
        error = f"± {each['standard_error']:.2f}"
        yield f"  {name:<{width}}  {each['agreement']:5.2f} {error}  ({counted(each['images'], 'image')})"
    if record["strength"] is None:
        yield (
            f"chosen: nothing, expansion.strength={given} stays: features recognise too few of the real images, or of the "
            "copies at the smallest strength; another encoder may see more"
        )
    else:
        yield (
            f"chosen: strength {record['strength']:g}, the largest up to which kappa is at least {record['retention']:g} times "
            "that at the smallest"
        )
