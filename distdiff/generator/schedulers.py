"""Noise schedules: diffusers' schedulers by our names, and the signal and noise levels of the latents they work on."""

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
# Latents are not pixels: nothing clips them. The solvers that have several forms predict the clean latent at second order.
FIXED_OPTIONS: dict[str, dict[str, Any]] = {
    "ddim": {"clip_sample": False, "thresholding": False},
    "dpmpp_2m": {"algorithm_type": "dpmsolver++", "solver_order": 2, "thresholding": False},
    "unipc": {"predict_x0": True, "thresholding": False},
    "lcm": {"clip_sample": False, "thresholding": False},
}


def resolve_scheduler(name: str, kind: Kind, config: dict[str, Any]) -> str:
    """`auto`: the pipeline's own scheduler where it is one of ours, else the first that suits its kind.

    Raises `UserError` for a pipeline whose own scheduler says that its network was trained on another kind of noise.
    """
    kind.check_scheduler(name)
    own, prediction_type = config["_class_name"], config.get("prediction_type", "epsilon")
    is_flow = own.startswith("FlowMatch") or bool(config.get("use_flow_sigmas"))
    if own.startswith("EDM") or is_flow != kind.is_flow or (not is_flow and prediction_type not in PREDICTION_TYPES):
        raise UserError(
            f"generator.model is not allowed: its scheduler, {own} with prediction type {prediction_type}, is not of the "
            f"kind of {kind.name} models"
        )
    if name != AUTO:
        return name
    return next((ours for ours in kind.schedulers if CLASSES[ours].__name__ == own), kind.schedulers[0])


def build_scheduler(name: str, config: dict[str, Any]) -> SchedulerMixin:
    """The scheduler called `name`, with the noise schedule that the pipeline's own `config` describes.

    Values that the pipeline left at its scheduler's defaults (`_use_default_values`) give way to the defaults of `name`, as
    in diffusers, but for `steps_offset`: Stable Diffusion pipelines set it behind that list's back.
    """
    defaults = [key for key in config.get("_use_default_values", []) if key != "steps_offset"]
    return CLASSES[name].from_config({**config, "_use_default_values": defaults}, **FIXED_OPTIONS.get(name, {}))


@dataclass(frozen=True)
class NoiseLevels:
    """How a scheduler's latents are made: z = signal · ẑ0 + noise · ε, one float64 value a step.

    `signal` and `noise` hold at the entry of a step, `next_signal` and `next_noise` at its exit; `scale` is what the
    model's input is multiplied with (other than 1 only for schedulers that keep the signal at full size, as Euler does).
    """

    signal: torch.Tensor
    noise: torch.Tensor
    next_signal: torch.Tensor
    next_noise: torch.Tensor
    scale: torch.Tensor


def noise_levels(scheduler: SchedulerMixin) -> NoiseLevels:
    """The levels of every step of a scheduler whose timesteps are set."""
    if isinstance(scheduler, DDIMScheduler | LCMScheduler):
        alpha_bar, following = _alpha_bars(scheduler)
        scale = torch.ones_like(alpha_bar)
        return NoiseLevels(alpha_bar.sqrt(), (1 - alpha_bar).sqrt(), following.sqrt(), (1 - following).sqrt(), scale)
    sigmas = scheduler.sigmas.double().cpu()
    scale = torch.ones_like(sigmas)
    if isinstance(scheduler, FlowMatchEulerDiscreteScheduler):  # z = (1 − σ) ẑ0 + σ ε
        signal, noise = 1 - sigmas, sigmas
    elif isinstance(scheduler, EulerDiscreteScheduler):  # z = ẑ0 + σ ε, scaled to unit variance for the model
        signal, noise, scale = torch.ones_like(sigmas), sigmas, (sigmas**2 + 1).rsqrt()
    else:  # z = (ẑ0 + σ ε) / √(1 + σ²)
        signal, noise = (sigmas**2 + 1).rsqrt(), sigmas * (sigmas**2 + 1).rsqrt()
    return NoiseLevels(signal[:-1], noise[:-1], signal[1:], noise[1:], scale[:-1])


def _alpha_bars(scheduler: DDIMScheduler | LCMScheduler) -> tuple[torch.Tensor, torch.Tensor]:
    """ᾱ of each step and of the one it leads to."""
    table, timesteps = scheduler.alphas_cumprod.double().cpu(), scheduler.timesteps.cpu()
    if isinstance(scheduler, LCMScheduler):  # its last step ends at the clean latent
        return table[timesteps], torch.cat([table[timesteps[1:]], torch.ones(1, dtype=torch.float64)])
    previous = timesteps - scheduler.config.num_train_timesteps // scheduler.num_inference_steps
    final = scheduler.final_alpha_cumprod.double().cpu()
    return table[timesteps], torch.where(previous >= 0, table[previous.clamp(min=0)], final)
