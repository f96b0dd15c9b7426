"""The `tune` keys, and the candidates that `expansion.tune=true` compares (no heavy imports)."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from typing import Any

from omegaconf import DictConfig

from distdiff.config.arguments import parse
from distdiff.config.composing import Job
from distdiff.encoders.config import GuideKeys
from distdiff.errors import UserError
from distdiff.expansion.naming import PLUS, row_name
from distdiff.keys import Group, key
from distdiff.keys.suggesting import one_of
from distdiff.methods.config import IMG2IMG
from distdiff.selection.config import ALL
from distdiff.study.methods import UNGUIDED

# What a candidate must not take from the job: it makes all of its images, in a directory of its own.
WHOLE = ("expansion.tune=false", "expansion.split=null", "expansion.total_split=1", "expansion.output_dir=null")


@dataclass
class TuneKeys:
    rows: list[str] = key()
    strengths: list[float] | None = key(above=0, at_most=1)
    rhos: list[float] | None = key(at_least=0)
    cfg_scales: list[float] | None = key(at_least=0)
    folds: int = key(at_least=2)
    repeats: int = key(at_least=1)
    keep: float = key(above=0, at_most=1)
    recipe: GuideKeys = key()


def check(config: DictConfig) -> None:
    """Raises `UserError` for a method whose settings are not searched, and for an empty list of values to search."""
    if not config.expansion.tune:
        return
    if config.method.name != IMG2IMG:
        raise UserError(
            f"expansion.tune=true is not allowed with method={config.method.name}: guidance, selection and strength of "
            f"method={IMG2IMG} are searched"
        )
    for name in ("rows", "strengths", "rhos", "cfg_scales"):
        if config.tune[name] is not None and not config.tune[name]:
            raise UserError(f"tune.{name}=[] is not allowed: one or more values{'' if name == 'rows' else ', or null'}")


def unread(config: DictConfig) -> dict[str, str]:
    return {} if config.expansion.tune else {"tune": "expansion.tune=true, which reads the tune keys, is not given"}


def variants(config: DictConfig, job: Job) -> Mapping[str, list[str]]:
    """The overrides of each candidate: every row at every strength, with every ρ if it is guided.

    Only `none` is left of a row's guidance, and the chosen one, if `guidance` was typed; a typed `selection` stands in the
    place of every row's. A strength, ρ or scale that was typed is the only one.
    """
    if not config.expansion.tune:
        return {}
    keys, found = config.tune, {}
    for guidance, selection in _rows(config, job):
        chosen = [f"guidance={guidance}", f"selection={selection}"]
        searched = [
            _values(job, "expansion.strength", keys.strengths),
            _values(job, "generator.cfg_scale", keys.cfg_scales),
        ]
        if guidance != UNGUIDED:
            searched.append(_values(job, "guidance.rho", keys.rhos))
        for values in product(*searched):
            found[f"{len(found):03}"] = [*chosen, *filter(None, values), *WHOLE]
    return found


def _rows(config: DictConfig, job: Job) -> Iterator[tuple[str, str]]:
    """The guidance and the selection of each row, without repetition."""
    typed = {item.key_or_group for item in parse(job.typed)}
    names = list(config.tune.rows)
    if UNGUIDED not in names:
        raise UserError(f"tune.rows={names} is not allowed: the others are compared with {UNGUIDED}, which is missing")
    if "guidance" in typed:
        names = [*(name for name in names if name.partition(PLUS)[0] == UNGUIDED), row_name(config)]
    rows: dict[tuple[str, str], None] = {}
    for name in names:
        guidance, _, selection = name.partition(PLUS)
        for group, option in (("guidance", guidance), ("selection", selection or ALL)):
            if option not in (known := job.search.options(group)):
                raise UserError(f"tune.rows={name} is not allowed: {one_of(option, known)}")
        rows[guidance, config.selection.name if "selection" in typed else selection or ALL] = None
    return iter(rows)


def _values(job: Job, name: str, values: Any) -> list[str | None]:
    """An override for each value of a key; [None], for no override, if the key was typed or if there are no values."""
    if values is None or job.typed_for(name) is not None:
        return [None]
    return [f"{name}={value}" for value in dict.fromkeys(values)]


TUNE = Group("tune", TuneKeys, check=check, unread=unread, variants=variants)
