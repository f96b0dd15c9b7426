"""The keys that every option of `guidance` has, and the checks that are made before any model is loaded."""

from dataclasses import dataclass

from omegaconf import MISSING, DictConfig

from distdiff.generator.config import step_counting
from distdiff.guidance.schedule import StepSchedule
from distdiff.keys import Group


@dataclass
class GuidanceKeys:
    _target_: str = MISSING
    name: str = MISSING


def check_steps(config: DictConfig, strength: float, key: str = "expansion.strength") -> None:
    """Raises `UserError` for a strength that leaves no steps, and for a `start_step` or `period` beyond the steps left.

    Checks the chosen guidance, and the guidance options that a study's rows name. Error messages call the strength
    `key`.
    """
    for guidance in (config.guidance, *config.options.get("guidance", {}).values()):
        StepSchedule.of(
            config.generator.num_steps,
            strength,
            guidance.get("start_step"),
            guidance.get("period"),
            step_counting(config.generator),
            key,
        )


GUIDANCE = Group(
    "guidance",
    GuidanceKeys,
    options_have_keys=True,
    taken_everywhere=("rho",),
    also_called={
        "guidance_step": "guidance.start_step",
        "guidance_period": "guidance.period",
        "gradient_scale": "guidance.rho",
        "class_weight": "energy.class_weight",
        "group_weight": "energy.group_weight",
    },
)
