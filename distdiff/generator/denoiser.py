"""Denoising of one batch, with the model, the batch's prompts and the noise schedule."""

import copy
import inspect
from collections.abc import Callable, Sequence

import torch
from diffusers import (
    DDIMScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    SchedulerMixin,
    UniPCMultistepScheduler,
)

from distdiff.generator.schedulers import noise_levels


class Denoiser:
    """The operations on latents (B, C, h, w) that guidance methods use.

    `index` is the index of a step in the full schedule, counted from 0. All latents that the methods take and return
    have unit variance, so that distances between latents are comparable across schedulers. Some schedulers internally
    use latents of another variance (`NoiseLevels`).

    `model(input, timestep)` gives the model's output with classifier-free guidance applied. `decode` turns clean
    latents into images (B, 3, H, W), in [0, 1] up to overshoot. Both functions are differentiable. `generators` has one
    generator for each sample; schedulers that add noise in a step (LCM) draw the noise from these generators.

    The scheduler's tables and timesteps stay on the CPU, so that no step waits for the device: schedulers look numbers up
    in these tables. What the steps need on the device is copied there once.
    """

    def __init__(
        self,
        model: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
        decode: Callable[[torch.Tensor], torch.Tensor],
        scheduler: SchedulerMixin,
        generators: Sequence[torch.Generator] = (),
    ) -> None:
        self.model = model
        self.decode = decode
        self.scheduler = scheduler
        self.generators = list(generators)
        self.levels = noise_levels(scheduler)
        self._reached: torch.Tensor | None = None  # the result of the last step
        self._copies: dict[tuple[str, torch.device, torch.dtype], torch.Tensor] = {}

    @property
    def is_memoryless(self) -> bool:
        """Whether a step depends on its latents alone: not on earlier steps nor, as the steps are called here, on random numbers.

        DDIM would draw noise with an η above 0, and Euler with an s_churn above 0; both are left at 0.
        """
        kind = type(self.scheduler)
        if kind is FlowMatchEulerDiscreteScheduler:
            return not self.scheduler.config.stochastic_sampling
        return kind in (DDIMScheduler, EulerDiscreteScheduler)

    def begin_at(self, index: int) -> None:
        """Tells a scheduler that counts its own steps that step `index` comes first, though noise was added for another."""
        if getattr(self.scheduler, "step_index", 0) is None:
            self.scheduler.set_begin_index(index)

    def fork(self, generators: Sequence[torch.Generator] | None = None) -> "Denoiser":
        """A copy for looking ahead, whose steps leave this denoiser's scheduler and random numbers untouched.

        If `generators` is None, the copy draws the noise that this denoiser will draw later, so the copy predicts the
        sampler's path. Otherwise the copy draws fresh noise from `generators`.
        """
        ahead = copy.copy(self)
        ahead.scheduler = copy.deepcopy(self.scheduler)
        if generators is None:
            generators = [generator.clone_state() for generator in self.generators]
        ahead.generators = list(generators)
        return ahead

    def add_noise(self, clean: torch.Tensor, noise: torch.Tensor, index: int) -> torch.Tensor:
        """z_t (B, C, h, w): `clean` with noise at the level of step `index`, at which img2img then starts."""
        self._begin(index)
        timesteps = self.scheduler.timesteps[index].to(clean.device).expand(len(clean))
        if isinstance(self.scheduler, FlowMatchEulerDiscreteScheduler):
            noisy = self.scheduler.scale_noise(clean, timesteps, noise)
        else:
            noisy = self.scheduler.add_noise(clean, noise, timesteps)
        return noisy / self._level("scale", index, noisy)

    def pure_noise(self, noise: torch.Tensor, index: int) -> torch.Tensor:
        """z_t made from unit Gaussian `noise` alone; text-to-image starts with this z_t at step `index`."""
        self._begin(index)
        spread = getattr(self.scheduler, "init_noise_sigma", 1.0)  # flow matching uses the noise as it is
        return noise * spread / self._level("scale", index, noise)

    def predict(self, latents: torch.Tensor, index: int) -> torch.Tensor:
        """The model's output at z_t, in the latents' precision."""
        timesteps = self.scheduler.timesteps
        timestep = self._copy("timesteps", timesteps, latents.device, timesteps.dtype)[index]
        return self.model(latents * self._level("input_scale", index, latents), timestep)

    def clean(self, latents: torch.Tensor, output: torch.Tensor, index: int) -> torch.Tensor:
        """ẑ0, the clean latent that the output implies.

        The formulas are those of Ho et al., 2020, eq. 15 (epsilon); Salimans & Ho, 2022 (v); Esser et al., 2024, eq. 13
        (flow: output = ε − ẑ0, so that z_t = ẑ0 + σ · output in the scheduler's own scale).
        """
        signal, noise = self._level("signal", index, latents), self._level("noise", index, latents)
        match self._prediction_type():
            case "epsilon":
                return (latents - noise * output) / signal
            case "v_prediction":
                return signal * latents - noise * output
            case "flow":
                return (latents - noise * output) * self._level("scale", index, latents)
            case "sample":
                return output
            case other:
                raise ValueError(f"no clean latent is known for prediction type {other}")

    def output_for(self, latents: torch.Tensor, clean: torch.Tensor, index: int) -> torch.Tensor:
        """The model's output at z_t that would imply the clean latent `clean`; the inverse of `clean` in its output."""
        signal, noise = self._level("signal", index, latents), self._level("noise", index, latents)
        match self._prediction_type():
            case "epsilon":
                return (latents - signal * clean) / noise
            case "v_prediction":
                return (signal * latents - clean) / noise
            case "flow":
                return (latents - clean / self._level("scale", index, latents)) / noise
            case "sample":
                return clean
            case other:
                raise ValueError(f"no output is known for prediction type {other}")

    def advance(self, latents: torch.Tensor, output: torch.Tensor, index: int) -> torch.Tensor:
        """z_{t−1} by the scheduler's own update."""
        self._begin(index)
        self._follow_displacement(latents, index)
        options = {"generator": self.generators} if self._takes_generators() else {}
        timestep, own = self.scheduler.timesteps[index], latents * self._level("scale", index, latents)
        following = self.scheduler.step(output, timestep, own, **options, return_dict=False)[0]
        self._reached = following / self._level("next_scale", index, following)
        return self._reached

    def after_clean_shift(self, shift: torch.Tensor, index: int) -> torch.Tensor:
        """The shift of z_{t−1} if ẑ0 shifts by `shift` and the predicted noise stays the same.

        The result is `shift` times the signal level of z_{t−1}.
        """
        return self._level("next_signal", index, shift) * shift

    def noise_level(self, index: int, like: torch.Tensor) -> torch.Tensor:
        """√(1 − ᾱ_t), the noise level of z_t."""
        return self._level("noise", index, like)

    def signal_level(self, index: int, like: torch.Tensor) -> torch.Tensor:
        """√ᾱ_t, the signal level of z_t; 0 for pure noise."""
        return self._level("signal", index, like)

    def renoise(self, following: torch.Tensor, noise: torch.Tensor, index: int) -> torch.Tensor:
        """Draws z_t ~ q(z_t | z_{t−1}), to go back in time over step `index`.

        This is called time travel (Lugmayr et al., 2022; FreeDoM, algorithm 2). `following` is z_{t−1}.
        """
        names = ("signal", "noise", "next_signal", "next_noise")
        signal, sigma, next_signal, next_sigma = (self._level(name, index, following) for name in names)
        ratio = signal / next_signal
        return ratio * following + (sigma**2 - (ratio * next_sigma) ** 2).clamp(min=0).sqrt() * noise

    def _level(self, name: str, index: int, like: torch.Tensor) -> torch.Tensor:
        return self._copy(name, getattr(self.levels, name), like.device, like.dtype)[index]

    def _copy(self, name: str, table: torch.Tensor, device: torch.device, dtype: torch.dtype) -> torch.Tensor:
        """The whole `table` on the device, copied once."""
        place = (name, device, dtype)
        if place not in self._copies:
            self._copies[place] = table.to(device, dtype)
        return self._copies[place]

    def _prediction_type(self) -> str:
        if isinstance(self.scheduler, FlowMatchEulerDiscreteScheduler):
            return "flow"
        return self.scheduler.config.prediction_type

    def _begin(self, index: int) -> None:
        """Tells a scheduler that counts its own steps at which step img2img starts, as diffusers' pipelines do."""
        if getattr(self.scheduler, "step_index", 0) is None and self.scheduler.begin_index is None:
            self.scheduler.set_begin_index(index)
        self.scheduler.is_scale_input_called = True  # Euler warns otherwise; `predict` scales the input

    def _takes_generators(self) -> bool:
        return bool(self.generators) and "generator" in inspect.signature(self.scheduler.step).parameters

    def _follow_displacement(self, latents: torch.Tensor, index: int) -> None:
        """Moves UniPC's stored last sample along with latents that guidance has moved.

        UniPC's corrector recomputes the current sample from the last sample (Zhao et al., 2023, algorithm 1), and would
        thereby undo the move. The corrector multiplies the last sample by the factor σ_t / σ_{t+1}, so the last sample
        is moved by the displacement divided by this factor.
        """
        if not isinstance(self.scheduler, UniPCMultistepScheduler) or self.scheduler.last_sample is None:
            return
        if self._reached is None or index == 0:
            return
        ratio = self._level("noise", index - 1, latents) / self._level("noise", index, latents)
        self.scheduler.last_sample = self.scheduler.last_sample + ratio * (latents - self._reached)
