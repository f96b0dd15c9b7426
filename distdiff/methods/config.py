"""The `method` keys that every method has, and the groups it reads, found from the signature of its `synthesizer`."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from omegaconf import MISSING, DictConfig

from distdiff.errors import UserError
from distdiff.generator.kinds import why_not_invertible
from distdiff.generator.location import local_kind
from distdiff.keys import NAME, TARGET, Group
from distdiff.keys.signatures import signature_of

# A study's row with one of these methods has the name of its guidance or of its augmentation policy.
IMG2IMG, AUGMENTATION = "img2img", "augmentation"
LATENTS, POLICY, INVERSIONS = "latents", "policy", "inversions"
SHOTS = "shots"  # the argument of a method's `strength` if it depends on the number of real images of a class
# What a method may ask for, and the configuration groups that each of these depends on.
MATERIALS: Mapping[str, tuple[str, ...]] = {
    "seed": (),
    "squares": ("generator",),
    "generator": ("generator",),
    "prompts": ("generator",),
    LATENTS: ("generator",),
    INVERSIONS: ("generator",),
    "guidance": ("guidance",),
    "image_energy": ("energy", "encoder", "prototype", "generator"),
    POLICY: (),
}
# Augmentation policies that cannot make a new image from a single one: they change almost nothing, or mix several images.
NO_COPIES = ("none", "default", "mixup", "cutmix")


@dataclass
class MethodKeys:
    _target_: str = MISSING
    name: str = MISSING


def needs_of(option: Mapping[str, Any]) -> tuple[str, ...]:
    """The names in `MATERIALS` that the method of these `method` keys asks for; raises `UserError` for an unknown name."""
    needs = signature_of(f"{option[TARGET]}.synthesizer").context
    for name in needs:
        if name not in MATERIALS:
            raise UserError(
                f"method={option.get(NAME)} needs {name!r}, which cannot be had: one of {', '.join(MATERIALS)}"
            )
    return needs


def groups_read(option: Mapping[str, Any]) -> set[str]:
    """The configuration groups whose keys can change the images of this method."""
    return {group for need in needs_of(option) for group in MATERIALS[need]}


def reads_strength(option: Mapping[str, Any]) -> bool:
    """Whether `expansion.strength` can change the images.

    Only methods that start from a source's latents read it, unless their strength follows from the number of shots.
    """
    return LATENTS in needs_of(option) and SHOTS not in signature_of(f"{option[TARGET]}.strength").context


def check(config: DictConfig) -> None:
    """Refuses a method that asks for something unknown, and a policy that makes no new images."""
    check_option(config.method, "method")
    if INVERSIONS in needs_of(config.method):
        generator = config.generator
        reason = why_not_invertible(generator.scheduler, generator.num_steps, local_kind(generator.model))
        if reason is not None:
            raise UserError(f"{reason} (method={config.method.name} inverts images)")


def check_option(option: DictConfig, place: str) -> None:
    """Checks `option`, the `method` keys at `place` in the configuration, as `check` does."""
    needs_of(option)
    if option.get(POLICY) in NO_COPIES:
        raise UserError(
            f"{place}.policy={option.policy} is not allowed: it makes no copy of an image that differs from the original; "
            "choose another policy, such as randaugment"
        )


METHOD = Group("method", MethodKeys, options_have_keys=True, check=check, also_called={"policy": "method.policy"})
