"""How far a whole of many stages has come, and how long the rest will take, judged by the stages that are done."""

import time
from collections.abc import Callable, Hashable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Protocol

from distdiff.wording import duration

SETTLED = 2.0  # seconds; a bar that is younger says nothing yet about how long others will take


class Counting(Protocol):
    """The bar of a stage, as far as the whole reads it. `rate` is in items per second, None if it is not known.

    `before` is the number of items that were there when the bar began, `done` that of those made since.
    """

    before: float
    done: float
    remaining: float
    elapsed: float
    rate: float | None


@dataclass(frozen=True)
class Step:
    """One stage of a whole.

    `kinds` says what the step is like, the closest likeness first: a step costs what the latest step of the same kind
    cost. `size` is the number of items to be made, 0 if all of them exist; if it is None, the step is taken to be as
    large as the latest of its kind. If `counted` is set, the step's bar counts the items that are made, and a step that
    makes none was found in the cache, and tells nothing about the cost of others. `is_exact` says that its bars count
    `size` items in all, which are then those that are left of it.
    """

    name: str
    kinds: tuple[Hashable, ...]
    size: float | None = None
    counted: bool = True
    is_exact: bool = False


@dataclass(frozen=True)
class Cost:
    """The seconds that a step took before and after its items, the seconds per item, and the number of items."""

    fixed: float
    each: float
    items: float

    def of(self, size: float | None) -> float:
        return self.fixed + self.each * (self.items if size is None else size)


class Whole:
    """The stages of a whole, of which one at a time is in progress in this process.

    `processes` is the number of processes that share the counted steps (`Step.counted`) that are left.
    """

    def __init__(self, steps: Iterable[Step], clock: Callable[[], float] = time.monotonic) -> None:
        self.steps = list(steps)
        self.clock = clock
        self.began = clock()
        self.current: Step | None = None
        self.bar: Counting | None = None  # the bar that counts the items of the current step
        self.processes = 1
        self._place = -1  # of the latest step in `steps`
        self._step_began = self.began
        self._made = self._making = 0.0  # items of the current step's finished bars, and seconds that they took
        self._found = 0.0  # items that were there when these bars began
        self._costs: dict[Hashable, Cost] = {}

    @contextmanager
    def step(self, name: str, size: float | None = None) -> Iterator[None]:
        """The block is the step `name`. Steps before it that were not taken are done; a step that is not listed is added.

        `size` is the number of items that its bars will count in all, if that is known now.
        """
        names = [step.name for step in self.steps]
        if name not in names:
            self.steps.insert(self._place + 1, Step(name, (name,)))
            names.insert(self._place + 1, name)
        self._place = names.index(name)
        if size is not None:
            self.steps[self._place] = replace(self.steps[self._place], size=size, is_exact=True)
        self.current, self._step_began = self.steps[self._place], self.clock()
        self._made = self._making = self._found = 0.0
        try:
            yield
            self._learn(self.current)
        finally:
            self.current = self.bar = None

    def settle(self, beginning: str) -> None:
        """The items of all steps whose name has this `beginning` are there: another process has made them."""
        self.steps = [
            replace(step, size=0) if step.counted and step.name.startswith(beginning) else step for step in self.steps
        ]

    @property
    def seconds_in_step(self) -> float:
        return self.clock() - self._step_began

    def count(self, bar: Counting) -> None:
        """Adds the items of a bar that has ended to the current step."""
        self._made += bar.done
        self._found += bar.before
        self._making += bar.elapsed
        self.bar = None

    def remaining(self) -> float | None:
        """The seconds that the rest will take; None if a step is left of whose kind none has been done."""
        current, later = self._left_of_current(), self.steps[self._place + 1 :]
        shared, own = ([self._estimate(step) for step in later if step.counted == counted] for counted in (True, False))
        if None in (current, *shared, *own):
            return None
        return max(current, (current + sum(shared)) / self.processes) + sum(own)

    def words(self) -> str:
        """Which stage it is, how long the whole has lasted and how long it will last."""
        place = f"stage {self._place + 1:,} of {len(self.steps):,}"
        elapsed = timedelta(seconds=int(self.clock() - self.began))
        return f"{place}, {elapsed} so far, {self._time_left()}"

    def _time_left(self) -> str:
        left = self.remaining()
        if left is None:
            return "time left unknown"
        return "nearly done" if left < 1 else f"about {duration(round(left), 2)} left for all stages"

    def _left_of_current(self) -> float | None:
        if self.current is None or self.current.size == 0:
            return 0.0
        if self.bar is not None and (rate := self._rate()):
            return self._items_left(self.current, self.bar) / rate
        estimate = self._estimate(self.current)
        return None if estimate is None else max(0.0, estimate - self.seconds_in_step)

    def _items_left(self, step: Step, bar: Counting) -> float:
        """Those of the bar in hand and, if it is known how many there are, of the bars that follow it in this step."""
        if not step.is_exact:
            return bar.remaining
        return max(bar.remaining, step.size - self._found - self._made - bar.before - bar.done)

    def _estimate(self, step: Step) -> float | None:
        if step.size == 0:
            return 0.0
        for kind in step.kinds:
            if (cost := self._cost(kind)) is not None:
                return cost.of(step.size)
        return None

    def _cost(self, kind: Hashable) -> Cost | None:
        """What the latest step of this kind cost, or what the current one does as far as it has come."""
        if kind in self._costs or self.current is None or kind not in self.current.kinds:
            return self._costs.get(kind)
        rate = self._rate()
        if self.bar is None or not rate:
            return None
        before = max(0.0, self.seconds_in_step - self.bar.elapsed)
        return Cost(before, 1 / rate, self.bar.done + self.bar.remaining)

    def _rate(self) -> float | None:
        return self.bar.rate if self.bar is not None and self.bar.elapsed >= SETTLED else None

    def _learn(self, step: Step) -> None:
        seconds = self.seconds_in_step
        if not step.counted:
            items = step.size or 1
            cost = Cost(0.0, seconds / items, items)
        elif self._made:
            cost = Cost(max(0.0, seconds - self._making), self._making / self._made, self._made)
        else:  # found in the cache
            return
        self._costs |= dict.fromkeys(step.kinds, cost)
