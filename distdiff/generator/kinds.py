"""The supported kinds of pipelines.

Each kind has a list of the schedulers that fit it, and a rule by which its img2img steps are counted. This module
has no heavy imports.
"""

import math
import re
from dataclasses import dataclass

from distdiff.errors import UserError

AUTO = "auto"
DIFFUSION_SCHEDULERS = ("ddim", "dpmpp_2m", "unipc", "euler", "lcm")
SCHEDULERS = (*DIFFUSION_SCHEDULERS, "flow_euler")


@dataclass(frozen=True)
class Kind:
    """A kind of pipeline; `counting` says how its img2img pipeline in diffusers turns a strength into a step count.

    With "floor", int(N · strength) of N steps run. With "ceil", N − int(N − N · strength) of N steps run. With "all",
    all N steps run at any strength, and the strength sets the noise level at which they start.
    """

    name: str
    family: str  # what the names of its classes in diffusers begin with
    schedulers: tuple[str, ...]
    counting: str
    is_flow: bool = False  # trained by flow matching, not diffusion

    @property
    def pipeline(self) -> str:
        """The name of its text-to-image class in diffusers."""
        return f"{self.family}Pipeline"

    def check_scheduler(self, scheduler: str) -> None:
        """Raises `UserError` for a scheduler that does not fit this kind of model."""
        if scheduler not in (AUTO, *self.schedulers):
            raise UserError(
                f"generator.scheduler={scheduler} is not allowed: for a {self.name} model, one of "
                f"{', '.join((AUTO, *self.schedulers))}"
            )


STABLE_DIFFUSION = Kind("Stable Diffusion", "StableDiffusion", DIFFUSION_SCHEDULERS, "floor")
STABLE_DIFFUSION_XL = Kind("Stable Diffusion XL", "StableDiffusionXL", DIFFUSION_SCHEDULERS, "floor")
STABLE_DIFFUSION_3 = Kind(
    "Stable Diffusion 3 (flow matching)",
    "StableDiffusion3",
    ("flow_euler",),
    "ceil",
    is_flow=True,
)
LATENT_CONSISTENCY = Kind("latent consistency", "LatentConsistencyModel", ("lcm",), "all")
KINDS = (STABLE_DIFFUSION, STABLE_DIFFUSION_XL, STABLE_DIFFUSION_3, LATENT_CONSISTENCY)


LEAST_STEPS = 5  # to denoise from an inverted image


def why_not_invertible(scheduler: str, num_steps: int, kind: Kind | None) -> str | None:
    """The reason in words if images cannot be inverted to noise and drawn from it again; `kind` may be unknown."""
    if kind is LATENT_CONSISTENCY or scheduler in LATENT_CONSISTENCY.schedulers:
        return "a latent consistency model or generator.scheduler=lcm is not allowed: it adds noise in each step"
    if num_steps < LEAST_STEPS:
        return (
            f"generator.num_steps={num_steps} is not allowed: at least {LEAST_STEPS}; a model that is distilled to fewer "
            "steps (turbo) has no path that could be followed back"
        )
    return None


# A pipeline's class says what its user wanted to do with it. The networks of these tasks are those of text-to-image, with
# the possible exception of inpainting, whose network may take more channels.
TASKS = re.compile(r"(ControlNet(Union)?)?(PAG)?(Img2Img|Inpaint)?Pipeline")


def kind_of(pipeline_class: str, model: str) -> Kind:
    """The kind of a diffusers pipeline, by the name of its class; raises `UserError` for an unsupported class.

    >>> kind_of("StableDiffusionXLImg2ImgPipeline", "a/b").name
    'Stable Diffusion XL'
    """
    for kind in KINDS:
        if pipeline_class.startswith(kind.family) and TASKS.fullmatch(pipeline_class.removeprefix(kind.family)):
            return kind
    raise UserError(
        f"generator.model={model} is not allowed: it is a {pipeline_class}; one of "
        + ", ".join(kind.pipeline for kind in KINDS)
    )


def count_steps(num_steps: int, strength: float, counting: str, key: str = "expansion.strength") -> int:
    """How many of `num_steps` steps run at `strength` by the rule `counting` (`Kind.counting`).

    Raises a `UserError` that calls the strength `key` if no step would run.

    >>> count_steps(50, 0.5, "floor"), count_steps(7, 0.5, "floor"), count_steps(7, 0.5, "ceil"), count_steps(4, 0.5, "all")
    (25, 3, 4, 4)
    """
    if counting == "all":
        return num_steps
    if counting == "ceil":
        run = num_steps - int(max(num_steps - min(num_steps * strength, num_steps), 0))
    else:
        run = min(int(num_steps * strength), num_steps)
    if run < 1:
        least = math.ceil(1e4 / num_steps) / 1e4
        raise UserError(
            f"{key}={strength:g} is not allowed: of {num_steps} steps it leaves none, so a number from {least:g} to 1"
        )
    return run
