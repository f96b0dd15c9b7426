"""The `preview` keys, and their checks, which run before anything is loaded."""

from dataclasses import dataclass

from omegaconf import DictConfig

from distdiff.errors import UserError
from distdiff.guidance.config import check_steps
from distdiff.keys import NAME, Group, key
from distdiff.methods.config import needs_of


@dataclass
class PreviewKeys:
    sources: int = key(at_least=1)
    strengths: list[float] | None = key(above=0, at_most=1)
    rhos: list[float] | None = key(at_least=0)


def check(config: DictConfig) -> None:
    """Raises `UserError` for an empty list of strengths or ρ, or for a strength that leaves too few denoising steps."""
    for name in ("strengths", "rhos"):
        if config.preview[name] is not None and not config.preview[name]:
            raise UserError(f"preview.{name}=[] is not allowed: a list of numbers, or null")
    for strength in config.preview.strengths or ():
        check_steps(config, strength, "preview.strengths")


def has_strengths_of_guidance(config: DictConfig) -> bool:
    """Whether the job's images are guided, with a strength ρ."""
    return "guidance" in needs_of(config.method) and "rho" in config.guidance


def unread(config: DictConfig) -> dict[str, str]:
    if has_strengths_of_guidance(config):
        return {}
    guided = "guidance" in needs_of(config.method)
    lacking = f"guidance={config.guidance[NAME]}" if guided else f"method={config.method[NAME]}"
    return {"preview.rhos": f"{lacking} has no guidance strength ρ; method=img2img guidance=direct has one"}


PREVIEW = Group("preview", PreviewKeys, check=check, unread=unread)
