"""FreeDoM: direct guidance that repeats each guided step with time travel (Yu et al., 2023)."""

from typing import Any

from distdiff.guidance.base import SeveralSteps
from distdiff.keys import PositiveInt


class Freedom(SeveralSteps):
    """Takes each guided step `recurrence` times: z_{t−1} ← z_{t−1} − ρ ∇_{z_t} E.

    Between two repetitions, the method travels back in time to z_t ~ q(z_t | z_{t−1}).

    This is algorithm 2 of Yu et al., 2023, with the configured energy as the condition. With recurrence 1 the method
    equals `direct`. At ρ = 0 each step is taken only once, since without a correction there is nothing to repeat.
    """

    idle_at_zero = ("rho",)

    def __init__(self, *, recurrence: PositiveInt, **keys: Any) -> None:
        super().__init__(**keys)
        self.recurrence = recurrence

    def step(self, latents, index, batch):
        first_energies = None
        rho = self.rho * self.share(index, batch.schedule)
        for travels_left in reversed(range(self.recurrence if rho > 0 else 1)):
            at = self.latent_gradient(latents, index, batch)
            stepper = batch.denoiser_of_repetition(travels_left)
            following = stepper.advance(latents, at.output, index) - rho * at.gradient
            first_energies = at.values if first_energies is None else first_energies
            if travels_left:
                latents = batch.travel_back(latents, following, index)
        return following, first_energies
