"""Noise schedules: diffusers' schedulers by their names in DistDiff, and the noise levels of their latents."""

from dataclasses import dataclass
from typing import Any

import torch
from diffusers import (
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    LCMScheduler,
    SchedulerMixin,
    UniPCMultistepScheduler,
)

from distdiff.errors import UserError
from distdiff.generator.kinds import AUTO, Kind

PREDICTION_TYPES = ("epsilon", "v_prediction", "sample")

CLASSES: dict[str, type[SchedulerMixin]] = {
    "ddim": DDIMScheduler,
    "dpmpp_2m": DPMSolverMultistepScheduler,
    "unipc": UniPCMultistepScheduler,
    "euler": EulerDiscreteScheduler,
    "lcm": LCMScheduler,
    "flow_euler": FlowMatchEulerDiscreteScheduler,
}
# Latents are not pixels, so they are never clipped. Solvers with several variants use the variant of second order that
# predicts the clean latent.
FIXED_OPTIONS: dict[str, dict[str, Any]] = {
    "ddim": {"clip_sample": False, "thresholding": False},
    "dpmpp_2m": {"algorithm_type": "dpmsolver++", "solver_order": 2, "thresholding": False},
    "unipc": {"predict_x0": True, "thresholding": False},
    "lcm": {"clip_sample": False, "thresholding": False},
}


def resolve_scheduler(name: str, kind: Kind, config: dict[str, Any]) -> str:
    """The name of the scheduler to use: `name` or, if this is `auto`, the scheduler for which `auto` stands.

    `auto` stands for the pipeline's own scheduler if it fits `kind`, and otherwise for the first scheduler that fits
    `kind`. Raises `UserError` for a scheduler that does not fit `kind`, and if the configuration of the pipeline's own
    scheduler (`config`) shows that the network was trained on another kind of noise.
    """
    kind.check_scheduler(name)
    own, prediction_type = config["_class_name"], config.get("prediction_type", "epsilon")
    is_flow = own.startswith("FlowMatch") or bool(config.get("use_flow_sigmas"))
    if own.startswith("EDM") or is_flow != kind.is_flow or (not is_flow and prediction_type not in PREDICTION_TYPES):
        raise UserError(
            f"generator.model is not allowed: its scheduler, {own} with prediction type {prediction_type}, does not "
            f"fit {kind.name} models"
        )
    if name != AUTO:
        return name
    return next((ours for ours in kind.schedulers if CLASSES[ours].__name__ == own), kind.schedulers[0])


def build_scheduler(name: str, config: dict[str, Any]) -> SchedulerMixin:
    """The scheduler called `name`, with the noise schedule that the pipeline's own `config` describes.

    As in diffusers, the values that the pipeline left at its scheduler's defaults are replaced by the defaults of
    `name`. The list `_use_default_values` names these values. `steps_offset` is never replaced, because Stable
    Diffusion pipelines set this value without removing it from the list.
    """
    defaults = [key for key in config.get("_use_default_values", []) if key != "steps_offset"]
    return CLASSES[name].from_config({**config, "_use_default_values": defaults}, **FIXED_OPTIONS.get(name, {}))


def odd_schedule(scheduler: SchedulerMixin) -> str | None:
    """What is wrong with the noise schedule, or None: its levels of signal fall from 1 to 0, one for each step."""
    levels = getattr(scheduler, "alphas_cumprod", None)
    if levels is None:
        return None
    if len(levels) != scheduler.config.num_train_timesteps:
        return (
            f"it has {len(levels)} noise levels for {scheduler.config.num_train_timesteps} steps (num_train_timesteps)"
        )
    if not (levels.isfinite().all() and levels[-1] >= 0 and levels[0] < 1 and (levels[1:] <= levels[:-1]).all()):
        return "its noise does not grow from step to step; beta_start and beta_end are numbers between 0 and 1"
    return None


@dataclass(frozen=True)
class NoiseLevels:
    """Levels of signal and noise, one float64 value for each step.

    The latents u = signal · ẑ0 + noise · ε with signal² + noise² = 1 have unit variance under every scheduler. The
    scheduler's own latents are `scale` times u. `scale` is √(1 + σ²) for Euler, which keeps the signal at full size. It
    is √((1 − σ)² + σ²) for flow matching, and 1 for the other schedulers. `signal`, `noise` and `scale` are the
    values before a step; the fields whose names begin with `next_` are the values after the step. The network's input
    is `input_scale` times u: the scheduler's own latents for flow matching, and u itself for the other schedulers.
    """

    signal: torch.Tensor
    noise: torch.Tensor
    scale: torch.Tensor
    next_signal: torch.Tensor
    next_noise: torch.Tensor
    next_scale: torch.Tensor
    input_scale: torch.Tensor


def noise_levels(scheduler: SchedulerMixin) -> NoiseLevels:
    """The levels at every step of `scheduler`; its timesteps must be set before the call."""
    if isinstance(scheduler, DDIMScheduler | LCMScheduler):
        alpha_bar, following = _alpha_bars(scheduler)
        one = torch.ones_like(alpha_bar)
        return NoiseLevels(
            alpha_bar.sqrt(), (1 - alpha_bar).sqrt(), one, following.sqrt(), (1 - following).sqrt(), one, one
        )
    sigmas = scheduler.sigmas.double().cpu()
    one = torch.ones_like(sigmas)
    if isinstance(scheduler, FlowMatchEulerDiscreteScheduler):  # the scheduler's own latents: (1 − σ) ẑ0 + σ ε
        scale = input_scale = torch.hypot(1 - sigmas, sigmas)
        signal, noise = (1 - sigmas) / scale, sigmas / scale
    else:  # Euler's own latents: ẑ0 + σ ε; those of DPM-Solver++ and UniPC have unit variance
        signal, noise = (sigmas**2 + 1).rsqrt(), sigmas * (sigmas**2 + 1).rsqrt()
        scale = (sigmas**2 + 1).sqrt() if isinstance(scheduler, EulerDiscreteScheduler) else one
        input_scale = one
    # The result of the last step is decoded as it is, so its scale is 1 even if the schedule ends above σ = 0.
    next_scale = torch.cat([scale[1:-1], one[-1:]])
    return NoiseLevels(signal[:-1], noise[:-1], scale[:-1], signal[1:], noise[1:], next_scale, input_scale[:-1])


def _alpha_bars(scheduler: DDIMScheduler | LCMScheduler) -> tuple[torch.Tensor, torch.Tensor]:
    """ᾱ before each step and ᾱ after each step."""
    table, timesteps = scheduler.alphas_cumprod.double().cpu(), scheduler.timesteps.cpu()
    if isinstance(scheduler, LCMScheduler):  # LCM's last step ends at the clean latent
        return table[timesteps], torch.cat([table[timesteps[1:]], torch.ones(1, dtype=torch.float64)])
    previous = timesteps - scheduler.config.num_train_timesteps // scheduler.num_inference_steps
    final = scheduler.final_alpha_cumprod.double().cpu()
    return table[timesteps], torch.where(previous >= 0, table[previous.clamp(min=0)], final)
