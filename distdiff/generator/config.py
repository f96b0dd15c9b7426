"""The `generator` keys, and the checks made before a model loads."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from omegaconf import MISSING, DictConfig

from distdiff.errors import UserError
from distdiff.generator.adapter_files import LEARNED_WORD, LORA, adapter_place
from distdiff.generator.kinds import AUTO, LATENT_CONSISTENCY, SCHEDULERS, Kind
from distdiff.generator.location import RANDOM, architectures, local_kind, model_path, split_scale
from distdiff.keys import LARGEST_SIDE, Group, key


@dataclass
class GeneratorKeys:
    model: str = MISSING  # a folder, a hub id or one .safetensors checkpoint
    architecture: str | None = key(None, choices=(*architectures(), None))  # of generator=random
    revision: str | None = None
    variant: str | None = None  # the variant of the weight files, such as fp16
    checkpoint_config: str | None = None  # for a checkpoint file; a folder or hub id; null: diffusers chooses
    use_t5: bool = True  # whether to load Stable Diffusion 3's third and largest text encoder
    lora: list[str] = key([])  # entries are path:scale
    textual_inversion: list[str] = key([])
    draws: str | None = None  # the only subject that the model can draw; null: any subject
    resolution: int = key(at_least=8, at_most=LARGEST_SIDE)
    num_steps: int = key(50, at_least=1)
    cfg_scale: float = key(7.5, at_least=0)
    negative_prompt: str = ""
    scheduler: str = key(AUTO, choices=(AUTO, *SCHEDULERS))
    dtype: str = key("float32", choices=("float32", "float64", "bfloat16", "float16", AUTO))  # auto: see precision.py
    guidance_decoder: str | None = None  # an AutoencoderTiny that decodes only for the energy
    # If true, guided steps take less memory and about a third more time. auto: false only on a GPU with enough memory.
    gradient_checkpointing: Any = key(False, choices=(True, False, AUTO))
    usual_strength: float = key(0.5, above=0, at_most=1)  # the default of `expansion.strength`
    usual_batch_size: int = key(4, at_least=1, at_most=10**6)  # the meaning of expansion.batch_size=auto on a CPU


def check(config: DictConfig) -> None:
    """Raises `UserError` for a path that does not exist, and for an unsuitable scheduler or negative prompt.

    A scheduler must fit the kind of model, and a negative prompt requires classifier-free guidance.
    """
    generator = config.generator
    kind = local_kind(generator.model)
    if kind is not None:
        kind.check_scheduler(generator.scheduler)
    if generator.negative_prompt and generator.cfg_scale <= 1:
        raise UserError(
            f"generator.negative_prompt={generator.negative_prompt!r} is not allowed: it takes classifier-free guidance, "
            f"generator.cfg_scale above 1 (here {generator.cfg_scale:g})"
        )
    for entry in generator.lora:
        adapter_place(LORA, split_scale(entry)[0])
    for entry in generator.textual_inversion:
        adapter_place(LEARNED_WORD, entry)
    for name in ("guidance_decoder", "checkpoint_config"):
        if generator[name] is not None:
            model_path(generator[name], f"generator.{name}")


def warn(config: DictConfig) -> Iterator[str]:
    """Warns if the generator can draw only one subject and the dataset has another subject."""
    draws = config.generator.draws
    if draws is not None and draws != config.dataset.subject:
        name = config.generator.model.rpartition(":")[2]
        yield (
            f"generator={name} draws nothing but {draws}: choose another, such as generator=sd15, for dataset "
            f"{config.dataset.name}"
        )


def unread(config: DictConfig) -> dict[str, str]:
    """`architecture`, if the model brings its own."""
    if str(config.generator.model).startswith(RANDOM):
        return {}
    return {"generator.architecture": "only generator=random reads generator.architecture"}


def step_counting(generator: DictConfig) -> str:
    """The rule by which img2img counts its steps (`Kind.counting`).

    For a local model, the rule of its kind is returned. The kind of a model on the hub is not known before the model is
    loaded, so the rule that allows the most strengths is returned. The model's own rule is checked after loading.
    """
    kind: Kind | None = local_kind(generator.model)
    if kind is not None:
        return kind.counting
    return "all" if generator.scheduler in (AUTO, *LATENT_CONSISTENCY.schedulers) else "ceil"


GENERATOR = Group(
    "generator",
    GeneratorKeys,
    check=check,
    warn=warn,
    unread=unread,
    paths=("model", "checkpoint_config", "guidance_decoder", "lora", "textual_inversion"),
    hub_ids=("model", "guidance_decoder", "lora", "textual_inversion"),
    also_called={
        "num_inference_steps": "generator.num_steps",
        "inference_steps": "generator.num_steps",
        "steps": "generator.num_steps",
        "guidance_scale": "generator.cfg_scale",
        "torch_dtype": "generator.dtype",
        "pretrained_model_name_or_path": "generator.model",
        "model_id": "generator.model",
    },
)
