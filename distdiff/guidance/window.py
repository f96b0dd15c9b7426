"""Guidance that begins with the first step that runs, as methods do that were published for whole trajectories."""

from typing import Any

from distdiff.guidance.base import Guidance
from distdiff.guidance.schedule import StepSchedule
from distdiff.keys import NonNegative, PositiveInt, Share


class FromTheFirstStep(Guidance):
    """Guides every `every`-th step from M on, until the share `until` of the steps that run is left.

    If `start_step` (M) is null, guidance begins with the first step that runs. A typed `period` (P) takes the place of
    `until`. At least one step is guided. `rho` is the strength of guidance.
    """

    def __init__(self, *, rho: NonNegative, until: Share, every: PositiveInt = 1, **keys: Any) -> None:
        super().__init__(**keys)
        self.rho = rho
        self.until = until
        self.every = every

    def schedule(self, num_steps: int, strength: float, counting: str = "floor") -> StepSchedule:
        resolved = StepSchedule.of(num_steps, strength, self.start_step, self.period, counting, from_the_first=True)
        return self.preparation.first_step(resolved, strength, counting)

    def steps_in_period(self, schedule: StepSchedule) -> int:
        if schedule.period is not None:
            return schedule.period
        left_over = round(self.until * (schedule.num_steps - schedule.first))
        return max(1, schedule.steps_left - left_over)

    def guided_steps(self, schedule: StepSchedule) -> range:
        return super().guided_steps(schedule)[:: self.every]
