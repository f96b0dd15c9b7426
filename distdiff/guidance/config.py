"""The keys that every option of `guidance` has, and the checks that are made before any model is loaded."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from omegaconf import MISSING, DictConfig

from distdiff.errors import UserError
from distdiff.generator.config import step_counting
from distdiff.guidance.schedule import StepSchedule
from distdiff.keys import NAME, TARGET, Group
from distdiff.keys.signatures import signature_of

UNGUIDED = "none"  # the option that guides nothing
REAL_FEATURES, REAL_LATENTS = "real_features", "real_latents"  # what a method may need (`guidance.real`)
REAL = (REAL_FEATURES, REAL_LATENTS)
UNTIL = "until"  # a key of the methods that begin with the first step that runs (`guidance.window`)


@dataclass
class GuidanceKeys:
    _target_: str = MISSING
    name: str = MISSING


def needs_of(option: Mapping[str, Any]) -> tuple[str, ...]:
    """What the guidance method of these keys needs, as names in `REAL`; raises `UserError` if it needs anything else."""
    needs = signature_of(option[TARGET]).context
    for name in needs:
        if name not in REAL:
            raise UserError(
                f"guidance={option.get(NAME)} needs {name!r}, which is not available; "
                f"a guidance method may ask for {', '.join(REAL)}"
            )
    return needs


def check(config: DictConfig) -> None:
    """Raises `UserError` for a guidance method that needs anything else than its keys and what `REAL` names."""
    needs_of(config.guidance)


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
            from_the_first=UNTIL in guidance,
        )


GUIDANCE = Group(
    "guidance",
    GuidanceKeys,
    options_have_keys=True,
    check=check,
    taken_everywhere=("rho",),
    also_called={
        "guidance_step": "guidance.start_step",
        "guidance_period": "guidance.period",
        "gradient_scale": "guidance.rho",
        "class_weight": "energy.class_weight",
        "group_weight": "energy.group_weight",
    },
)
