"""Which denoising steps run, and which of these steps are guided.

This module contains only arithmetic, so that both the check of the configuration and the sampling can use it.
"""

from dataclasses import dataclass, replace

from distdiff.errors import UserError
from distdiff.generator.kinds import count_steps

DEFAULT_START_FRACTION = 0.4  # the published M = 20 of 50 steps


@dataclass(frozen=True)
class StepSchedule:
    """Indices into the full schedule of `num_steps` steps; index 0 is the noisiest step.

    `first` is the step at which img2img starts, and `first_guided = num_steps - M` is the first guided step. `period`
    is P, which is at most `steps_left`; `period` is None if the method chooses P.
    """

    num_steps: int
    first: int
    first_guided: int
    period: int | None

    @classmethod
    def of(
        cls,
        num_steps: int,
        strength: float,
        start_step: int | None,
        period: int | None,
        counting: str = "floor",
        key: str = "expansion.strength",
        from_the_first: bool = False,
    ) -> "StepSchedule":
        """Resolves M (`start_step`) and P (`period`); raises `UserError` for a value beyond the available steps.

        `counting` is the rule for how many steps run at a strength (`generator.kinds.Kind`). Error messages call the
        strength `key`. `from_the_first`: whether guidance begins with the first step that runs if `start_step` is None.

        >>> StepSchedule.of(num_steps=50, strength=0.5, start_step=None, period=None)
        StepSchedule(num_steps=50, first=25, first_guided=30, period=None)
        >>> StepSchedule.of(num_steps=50, strength=0.2, start_step=None, period=2).first_guided
        40
        """
        run = count_steps(num_steps, strength, counting, key)
        if start_step is not None and start_step > run:
            raise UserError(
                f"guidance.start_step={start_step} is not allowed: strength {strength:g} leaves {run} of "
                f"{num_steps} steps, so a number from 1 to {run}"
            )
        usual = run if from_the_first else max(1, min(round(DEFAULT_START_FRACTION * num_steps), run))
        start = usual if start_step is None else start_step
        if period is not None and period > start:
            raise UserError(
                f"guidance.period={period} is not allowed: from start_step {start} on there are {start} steps, "
                f"so a number from 1 to {start}"
            )
        return cls(num_steps, num_steps - run, num_steps - start, period)

    def starting_at(self, first: int) -> "StepSchedule":
        """This schedule, but denoising starts at step `first`, or at the first guided step if that is earlier."""
        return replace(self, first=min(first, self.first_guided))

    @property
    def steps_left(self) -> int:
        """The number of steps from the first guided one to the end (M)."""
        return self.num_steps - self.first_guided
