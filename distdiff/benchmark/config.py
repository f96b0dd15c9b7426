"""The `benchmark` keys, and the checks on its rows that run before anything loads."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from omegaconf import DictConfig, OmegaConf

from distdiff.config.arguments import refuse_shared
from distdiff.errors import UserError
from distdiff.expansion.naming import row_name
from distdiff.keys import Group, key
from distdiff.keys.suggesting import one_of
from distdiff.methods.config import needs_of
from distdiff.selection.config import ALL

FORM = "'benchmark.rows={<name>: [<override>, ...]}'"
DEFAULT_ROWS = {
    "none": ["guidance=none"],
    "chosen": [],  # as the command's own keys say
    "published": ["guidance=transform_official", "expansion.batch_size=1"],
    "published_in_batches": ["guidance=transform_official"],
}
ONLY_THE_JOB = "benchmark.rows={}"
# The groups that a row may change: how images are made.
CHANGEABLE = ("generator", "encoder", "prototype", "energy", "guidance", "method", "expansion")


@dataclass
class BenchmarkKeys:
    rows: Any = (
        key()
    )  # the settings to compare: a mapping from names to lists of overrides; null: DEFAULT_ROWS, or the job alone
    baseline: str | None = key()  # the row with which all rows are compared; null: the first
    repeats: int = key(at_least=1)  # runs of each row that are timed
    images: int = key(at_least=1)  # images that a run makes at least
    parts: bool = key()  # whether to measure the time and FLOPs of each part


def check(config: DictConfig) -> None:
    """Raises `UserError` if `benchmark.baseline` is no row."""
    rows, baseline = list(rows_of(config)), config.benchmark.baseline
    if rows and baseline is not None and baseline not in rows:
        raise UserError(f"benchmark.baseline={baseline} is not allowed: {one_of(baseline, rows)}")


def unread(config: DictConfig) -> Mapping[str, str]:
    """The keys that a benchmark does not read, with the reason."""
    return {
        "expansion.factor": "benchmark.images says how many images a run makes",
        "expansion.output_dir": "a benchmark keeps no images",
        "expansion.split": "a benchmark divides nothing",
    }


def warn(config: DictConfig) -> Iterator[str]:
    """Warns that a selection is not measured."""
    if config.selection.name != ALL:
        yield f"selection={config.selection.name} is not measured: a benchmark measures how images are made"


def variants(config: DictConfig, _: object = None) -> Mapping[str, list[str]]:
    """The overrides of each row.

    Raises `UserError` for a row that is not a list of overrides, and for an override of a group that all rows share.
    """
    found = {}
    for name, overrides in rows_of(config).items():
        if not isinstance(name, str):
            raise UserError(f"benchmark.rows.{name} is not allowed: a row's name is text that is no number, {FORM}")
        if not isinstance(overrides, list) or not all(isinstance(item, str) for item in overrides):
            raise UserError(f"benchmark.rows.{name}={overrides} is not allowed: a list of overrides, {FORM}")
        refuse_shared(f"benchmark.rows.{name}", overrides, CHANGEABLE)
        found[name] = [*overrides, ONLY_THE_JOB]
    return found


def rows_of(config: DictConfig) -> Mapping[str, Any]:
    """The rows to compare, by name. Raises `UserError` if `benchmark.rows` is no mapping."""
    rows = config.benchmark.rows
    if rows is None:
        return DEFAULT_ROWS if "guidance" in needs_of(config.method) else {row_name(config): []}
    if not OmegaConf.is_dict(rows):
        raise UserError(f"benchmark.rows={rows} is not allowed: {FORM}")
    return OmegaConf.to_container(rows)


BENCHMARK = Group("benchmark", BenchmarkKeys, check=check, warn=warn, unread=unread, variants=variants)
