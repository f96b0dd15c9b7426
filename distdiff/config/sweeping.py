"""Which values a sweeper that chooses its jobs as it goes, such as Optuna's, may take for a swept key."""

import math
from decimal import Decimal

from hydra.core.override_parser.types import IntervalSweep, Override, RangeSweep
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf

from distdiff.errors import UserError, first_line
from distdiff.keys import TARGET

OPTUNA_SWEEPER = "hydra_plugins.hydra_optuna_sweeper.optuna_sweeper.OptunaSweeper"


def number_of_trials(sweeper: DictConfig) -> int | None:
    """How many jobs the sweeper will run; None if it does not say so."""
    return None if _is_grid(sweeper) else sweeper.get("n_trials")


def values_of(override: Override, sweeper: DictConfig) -> list[str]:
    """The override with each value of a choice, or with both ends of a range or interval, as the sweeper takes them.

    Raises `UserError` if it has none.
    """
    if not override.is_sweep_override():
        return [override.input_line]
    value = override.value()
    try:
        if isinstance(value, IntervalSweep):  # one that ends before it starts is for the sweeper to refuse
            values = [value.start, value.end] if value.start <= value.end else [value.start]
        elif isinstance(value, RangeSweep) and value.shuffle:  # for Optuna, a choice
            values = list(value.range())
            values = values[:1] + values[-1:]
        elif isinstance(value, RangeSweep):
            values = _ends(value, _number_in(value, sweeper))
        else:
            values = list(override.sweep_string_iterator())
    except (TypeError, ValueError, ArithmeticError, HydraException) as error:
        raise UserError(f"{override.input_line} gives no value ({first_line(error)})") from None
    if not values:
        raise UserError(f"{override.input_line} gives no value")
    return [f"{override.get_key_element()}={each}" for each in dict.fromkeys(values)]


def _is_grid(sweeper: DictConfig) -> bool:
    """Whether an Optuna sweeper tries a grid, of which `n_trials` is only the most that it tries."""
    return "GridSampler" in str(OmegaConf.select(sweeper, f"sampler.{TARGET}"))


def _number_in(values: RangeSweep, sweeper: DictConfig) -> int:
    """How many values the sweeper takes of a range: Python's range ends before its stop, Optuna's with it, but in a grid not.

    >>> optuna = OmegaConf.create({TARGET: OPTUNA_SWEEPER, "sampler": {TARGET: "optuna.samplers.TPESampler"}})
    >>> grid = OmegaConf.merge(optuna, {"sampler": {TARGET: "optuna.samplers.GridSampler"}})
    >>> tenths, odd = RangeSweep(start=0, stop=0.3, step=0.1), RangeSweep(start=1, stop=10, step=4)
    >>> [(_number_in(tenths, each), _number_in(odd, each)) for each in (OmegaConf.create({TARGET: ""}), optuna, grid)]
    [(3, 3), (4, 3), (2, 2)]
    """
    if sweeper[TARGET] == OPTUNA_SWEEPER and _is_grid(sweeper):
        return int((values.stop - values.start) // values.step)  # as the plugin divides
    start, stop, step = _decimals(values)
    steps = (stop - start) / step
    return math.floor(steps) + 1 if sweeper[TARGET] == OPTUNA_SWEEPER else math.ceil(steps)


def _ends(values: RangeSweep, number: int) -> list[float]:
    """The first and the last of so many values of a range.

    >>> _ends(RangeSweep(start=0, stop=0.3, step=0.1), 4), _ends(RangeSweep(start=9, stop=1, step=-4), 2)
    ([0.0, 0.3], [9, 5])
    """
    start, _, step = _decimals(values)
    kind = float if float in map(type, (values.start, values.stop, values.step)) else int
    return [kind(start), kind(start + (number - 1) * step)] if number > 0 else []


def _decimals(values: RangeSweep) -> tuple[Decimal, Decimal, Decimal]:
    """The start, stop and step of a range as decimals, of which 0.3 is three times 0.1."""
    return Decimal(str(values.start)), Decimal(str(values.stop)), Decimal(str(values.step))
