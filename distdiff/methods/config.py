"""The `method` keys that every method has, and which configuration groups a method reads, by its signature."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from omegaconf import MISSING, DictConfig

from distdiff.config.signatures import signature_of
from distdiff.errors import UserError
from distdiff.keys import NAME, TARGET, Group

IMG2IMG, AUGMENTATION = "img2img", "augmentation"  # options that a study's rows of guidance and augmentation stand for
LATENTS, POLICY = "latents", "policy"
# What a method may be given, and the configuration groups that it is made of.
MATERIALS: Mapping[str, tuple[str, ...]] = {
    "seed": (),
    "squares": ("generator",),
    "generator": ("generator",),
    "prompts": ("generator",),
    LATENTS: ("generator",),
    "guidance": ("guidance",),
    "image_energy": ("energy", "encoder", "prototype", "generator"),
    POLICY: (),
}
# Augmentation policies that make no new images of a single one: they change nothing or little, or mix several.
NO_COPIES = ("none", "default", "mixup", "cutmix")


@dataclass
class MethodKeys:
    _target_: str = MISSING
    name: str = MISSING


def needs_of(option: Mapping[str, Any]) -> tuple[str, ...]:
    """What the method of these `method` keys is given: names of `MATERIALS`; raises `UserError` for any other."""
    needs = signature_of(f"{option[TARGET]}.synthesizer").context
    for name in needs:
        if name not in MATERIALS:
            raise UserError(
                f"method={option.get(NAME)} needs {name!r}, which cannot be had: one of {', '.join(MATERIALS)}"
            )
    return needs


def groups_read(option: Mapping[str, Any]) -> set[str]:
    """The configuration groups whose keys can change what this method makes."""
    return {group for need in needs_of(option) for group in MATERIALS[need]}


def reads_strength(option: Mapping[str, Any]) -> bool:
    """Whether `expansion.strength` can change what this method makes: it is for methods that begin with a source's latents."""
    return LATENTS in needs_of(option)


def check(config: DictConfig) -> None:
    """Refuses a method that needs what cannot be had, and a policy that makes no new images."""
    check_option(config.method, "method")


def check_option(option: DictConfig, place: str) -> None:
    """The same for a method whose keys stand at `place`."""
    needs_of(option)
    if option.get(POLICY) in NO_COPIES:
        raise UserError(
            f"{place}.policy={option.policy} is not allowed: it makes no copy of an image that differs from it; "
            "choose another policy, such as randaugment"
        )


METHOD = Group("method", MethodKeys, options_have_keys=True, check=check, also_called={"policy": "method.policy"})
