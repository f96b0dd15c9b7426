"""One batch's denoising: the model under its prompts, and the schedule it runs on."""

import copy
import inspect
from collections.abc import Callable, Sequence

import torch
from diffusers import FlowMatchEulerDiscreteScheduler, SchedulerMixin, UniPCMultistepScheduler

from distdiff.generator.schedulers import noise_levels


class Denoiser:
    """The operations on latents (B, C, h, w) that a guidance method composes; `index` counts the full schedule, 0 first.

    All latents that it takes and returns have unit variance, whatever scale the scheduler works at (`NoiseLevels`), so that
    a distance between latents means the same under every scheduler.

    `model(input, timestep)` gives the model's output with classifier-free guidance applied; `decode` takes clean latents to
    images (B, 3, H, W), in [0, 1] up to overshoot. All are differentiable. `generators`, one a sample, feed the schedulers
    that add noise as they step (LCM).
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
        self._reached: torch.Tensor | None = None  # where the last step led

    def fork(self, generators: Sequence[torch.Generator] | None = None) -> "Denoiser":
        """A denoiser that looks ahead: its steps leave this one's scheduler and random numbers untouched.

        It draws the noise that this one will draw, so that it sees where the sampler will go, or, where `generators` are
        given, fresh noise from them.
        """
        ahead = copy.copy(self)
        ahead.scheduler = copy.deepcopy(self.scheduler)
        if generators is None:
            generators = [generator.clone_state() for generator in self.generators]
        ahead.generators = list(generators)
        return ahead

    def add_noise(self, clean: torch.Tensor, noise: torch.Tensor, index: int) -> torch.Tensor:
        """z_t of `clean` at the noise level of step `index`, where denoising then begins."""
        self._begin(index)
        timesteps = self.scheduler.timesteps[index].to(clean.device).expand(len(clean))
        if isinstance(self.scheduler, FlowMatchEulerDiscreteScheduler):
            noisy = self.scheduler.scale_noise(clean, timesteps, noise)
        else:
            noisy = self.scheduler.add_noise(clean, noise, timesteps)
        return noisy / self._level("scale", index, noisy)

    def pure_noise(self, noise: torch.Tensor, index: int) -> torch.Tensor:
        """z_t of no image at all, as text-to-image begins with it at step `index`, from unit Gaussian noise."""
        self._begin(index)
        return noise * getattr(
            self.scheduler, "init_noise_sigma", 1.0
        )  # flow matching's schedulers begin with the noise

    def predict(self, latents: torch.Tensor, index: int) -> torch.Tensor:
        """The model's output at z_t, in the latents' precision."""
        return self.model(latents * self._level("input_scale", index, latents), self.scheduler.timesteps[index])

    def clean(self, latents: torch.Tensor, output: torch.Tensor, index: int) -> torch.Tensor:
        """ẑ0, the clean latent that the output implies.

        Ho et al., 2020, eq. 15 (epsilon); Salimans & Ho, 2022 (v); Esser et al., 2024, eq. 13 (flow: output = ε − ẑ0, so
        that z_t = ẑ0 + σ · output in the scheduler's own scale).
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
        """How far z_{t−1} moves when ẑ0 moves by `shift` and the predicted noise stays: by the next signal level."""
        return self._level("next_signal", index, shift) * shift

    def noise_level(self, index: int, like: torch.Tensor) -> torch.Tensor:
        """√(1 − ᾱ_t): how much noise there is in z_t."""
        return self._level("noise", index, like)

    def renoise(self, following: torch.Tensor, noise: torch.Tensor, index: int) -> torch.Tensor:
        """z_t ~ q(z_t | z_{t−1}): back over step `index` (time travel; Lugmayr et al., 2022; FreeDoM, algorithm 2)."""
        names = ("signal", "noise", "next_signal", "next_noise")
        signal, sigma, next_signal, next_sigma = (self._level(name, index, following) for name in names)
        ratio = signal / next_signal
        return ratio * following + (sigma**2 - (ratio * next_sigma) ** 2).clamp(min=0).sqrt() * noise

    def _level(self, name: str, index: int, like: torch.Tensor) -> torch.Tensor:
        return getattr(self.levels, name)[index].to(like)

    def _prediction_type(self) -> str:
        if isinstance(self.scheduler, FlowMatchEulerDiscreteScheduler):
            return "flow"
        return self.scheduler.config.prediction_type

    def _begin(self, index: int) -> None:
        """Tells a scheduler that counts its steps where img2img starts, as diffusers' pipelines do."""
        if getattr(self.scheduler, "step_index", 0) is None and self.scheduler.begin_index is None:
            self.scheduler.set_begin_index(index)
        self.scheduler.is_scale_input_called = True  # Euler asks; `predict` scaled it

    def _takes_generators(self) -> bool:
        return bool(self.generators) and "generator" in inspect.signature(self.scheduler.step).parameters

    def _follow_displacement(self, latents: torch.Tensor, index: int) -> None:
        """Moves UniPC's memory of the last sample along with latents that guidance has moved.

        Its corrector computes the sample anew from the one before (Zhao et al., 2023, algorithm 1) and would undo the move;
        the sample before enters with the factor σ_t / σ_{t+1}, so it is moved by the inverse.
        """
        if not isinstance(self.scheduler, UniPCMultistepScheduler) or self.scheduler.last_sample is None:
            return
        if self._reached is None or index == 0:
            return
        ratio = self._level("noise", index - 1, latents) / self._level("noise", index, latents)
        self.scheduler.last_sample = self.scheduler.last_sample + ratio * (latents - self._reached)
