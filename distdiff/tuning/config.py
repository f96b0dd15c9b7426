"""The `tune` keys, and the candidates that `expansion.tune=true` compares (no heavy imports)."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields
from itertools import product
from typing import Any

from omegaconf import DictConfig

from distdiff.config.command import OPTIONS
from distdiff.config.composing import Job
from distdiff.encoders.config import GUIDE, RecipeKeys
from distdiff.errors import UserError
from distdiff.expansion.naming import PLUS, row_name
from distdiff.keys import TARGET, Group, key
from distdiff.keys.signatures import signature_of
from distdiff.keys.suggesting import one_of
from distdiff.methods.config import IMG2IMG
from distdiff.option_files.overrides import parse
from distdiff.selection.config import ALL
from distdiff.study.methods import UNGUIDED

ACCURACY, AGREEMENT = "accuracy", "agreement"
# The keys that only one criterion reads.
OF_CRITERION = {
    ACCURACY: ("rows", "rhos", "cfg_scales", "factors", "repeats", "keep", "recipe"),
    AGREEMENT: ("images", "retention"),
}
# What a candidate does not take from the job's `expansion` keys: it makes all of its images, in a directory of its own.
OWN = {"tune": False, "split": None, "total_split": 1, "output_dir": None, "format": "imagefolder"}


@dataclass
class TuneKeys:
    criterion: str = key(choices=(ACCURACY, AGREEMENT))
    rows: list[str] = key()
    strengths: list[float] | None = key(above=0, at_most=1)
    rhos: list[float] | None = key(at_least=0)
    cfg_scales: list[float] | None = key(at_least=0)
    factors: list[int] | None = key(at_least=1, at_most=10**6)
    folds: int = key(at_least=2)
    repeats: int = key(at_least=1)
    keep: float = key(above=0, at_most=1)
    recipe: RecipeKeys = key()
    images: int = key(at_least=1)
    retention: float = key(above=0, at_most=1)


def check(config: DictConfig) -> None:
    """Raises `UserError` for a method whose settings are not searched, and for an empty list of values to search."""
    if not config.expansion.tune:
        return
    by_agreement = config.tune.criterion == AGREEMENT
    if config.method.name != IMG2IMG:
        searched = "the strength" if by_agreement else "guidance, selection and strength"
        raise UserError(
            f"expansion.tune=true is not allowed with method={config.method.name}: {searched} of method={IMG2IMG} "
            f"{'is' if by_agreement else 'are'} searched"
        )
    if config.encoder.get(GUIDE) is not None and config.encoder[GUIDE].get("copies"):
        raise UserError(
            f"expansion.tune=true is not allowed with encoder.guide.copies={config.encoder[GUIDE].copies}: each candidate would "
            "make a first round of images in each fold"
        )
    for name in ("rows", "strengths", "rhos", "cfg_scales", "factors"):
        if config.tune[name] is not None and not config.tune[name]:
            raise UserError(f"tune.{name}=[] is not allowed: one or more values{'' if name == 'rows' else ', or null'}")
    if by_agreement and config.tune.strengths is not None and len({*config.tune.strengths}) < 2:
        raise UserError(
            f"tune.strengths={list(config.tune.strengths)} is not allowed with tune.criterion={AGREEMENT}: two or more values"
        )


def unread(config: DictConfig) -> dict[str, str]:
    if not config.expansion.tune:
        reason = "expansion.tune=true, which reads the tune keys, is not given"
        return {f"tune.{item.name}": reason for item in fields(TuneKeys)}
    others = (name for criterion, names in OF_CRITERION.items() if criterion != config.tune.criterion for name in names)
    return {f"tune.{name}": f"tune.criterion={config.tune.criterion} does not read it" for name in others}


def refers_to(config: DictConfig, options_of: Callable[[str], list[str]]) -> Iterator[tuple[str, str]]:
    """Yields (group, option) for the guidance and the selection of each row that the job's keys do not choose.

    Raises `UserError` for an unknown row, and if `none` is missing.
    """
    if not config.expansion.tune or config.tune.criterion == AGREEMENT:
        return
    names = list(config.tune.rows)
    if UNGUIDED not in names:
        raise UserError(f"tune.rows={names} is not allowed: the others are compared with {UNGUIDED}, which is missing")
    for name in names:
        for group, option in _options(name).items():
            if option not in (known := options_of(group)):
                raise UserError(f"tune.rows={name} is not allowed: {one_of(option, known)}")
            if config[group].name != option:
                yield group, option


def variants(config: DictConfig, job: Job) -> Mapping[str, list[str]]:
    """The overrides of each candidate: every row at every strength and factor, with every ρ if it is guided.

    By agreement, there is the job itself at every strength; raises `UserError` if there is none to choose from. By accuracy, only
    `none` is left of a row's guidance, and the chosen one, if `guidance` was typed; a typed `selection` stands in the place of
    every row's. A strength, ρ, scale or factor that was typed is the only one.
    """
    if not config.expansion.tune:
        return {}
    keys, found = config.tune, {}
    own = [f"expansion.{name}={'null' if value is None else value}" for name, value in OWN.items()]
    if keys.criterion == AGREEMENT:
        strengths = _values(job, "expansion.strength", keys.strengths)
        if None in strengths:
            given = job.typed_for("expansion.strength") or "tune.strengths=null"
            raise UserError(
                f"{given} is not allowed with tune.criterion={AGREEMENT}, which chooses among tune.strengths"
            )
        return {f"candidate {strength}": [strength, *own] for strength in strengths}
    # Scales are the outermost, because the generator is loaded again for each.
    for scale in _values(job, "generator.cfg_scale", keys.cfg_scales):
        for row in _rows(config, job):
            chosen = [f"{group}={option}" for group, option in row.items()]
            rhos = [None] if row["guidance"] == UNGUIDED else _values(job, "guidance.rho", keys.rhos)
            strengths = _values(job, "expansion.strength", keys.strengths)
            factors = _values(job, "expansion.factor", keys.factors)
            for strength, rho, factor in product(strengths, rhos, factors):
                searched = [*chosen, *(each for each in (strength, rho, scale, factor) if each is not None)]
                found[f"candidate {' '.join(searched)}"] = [*searched, *_typed_for(config, job, row), *own]
    return found


def _options(name: str) -> dict[str, str]:
    """The guidance and the selection that a row names."""
    guidance, _, selection = name.partition(PLUS)
    return {"guidance": guidance, "selection": selection or ALL}


def _typed_for(config: DictConfig, job: Job, row: Mapping[str, str]) -> Iterator[str]:
    """The typed keys of a group that the row's option reads; those of the option that the job chooses apply by themselves."""
    for group, option in row.items():
        if config[group].name == option:
            continue
        known = signature_of(config[OPTIONS][group][option][TARGET]).keys
        for typed in job.typed:
            place = typed.lstrip("+").partition("=")[0]
            if place.startswith(f"{group}.") and place.split(".")[1] in known:
                yield typed


def _rows(config: DictConfig, job: Job) -> list[dict[str, str]]:
    """The guidance and the selection of each row, without repetition."""
    typed, names = {item.key_or_group for item in parse(job.typed)}, list(config.tune.rows)
    if "guidance" in typed:
        names = [*(name for name in names if _options(name)["guidance"] == UNGUIDED), row_name(config)]
    rows: list[dict[str, str]] = []
    for row in map(_options, names):
        if "selection" in typed:
            row["selection"] = config.selection.name
        if row not in rows:
            rows.append(row)
    return rows


def _values(job: Job, name: str, values: Any) -> list[str | None]:
    """An override for each value of a key; [None], for no override, if the key was typed or if there are no values."""
    if values is None or job.typed_for(name) is not None:
        return [None]
    return [f"{name}={value}" for value in dict.fromkeys(values)]


TUNE = Group("tune", TuneKeys, check=check, refers_to=refers_to, unread=unread, variants=variants)
