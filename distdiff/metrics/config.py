"""The `metric` keys that every metric has, and the `measure` keys."""

from dataclasses import dataclass

from omegaconf import MISSING

from distdiff.keys import Group, key
from distdiff.store.config import check_directories


@dataclass
class MetricKeys:
    _target_: str = MISSING
    name: str = MISSING


@dataclass
class MeasureKeys:
    expanded: str | None = None
    where: str | None = None  # a condition on the metadata of `expanded`
    metrics: list[str] = key(option_of="metric")
    judge_steps: int = key(at_least=1)


METRIC = Group("metric", MetricKeys, options_have_keys=True)
MEASURE = Group(
    "measure",
    MeasureKeys,
    check=check_directories("measure", "expanded"),
    paths=("expanded",),
    also_called={"num_neighbours": "options.metric.coverage.num_neighbours"},
)
