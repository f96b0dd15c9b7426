"""A pipeline as a checkpoint of the original Stable Diffusion repository, whose weights have other names."""

import torch
from diffusers import StableDiffusionPipeline


def original_names(pipeline: StableDiffusionPipeline) -> dict[str, torch.Tensor]:
    """The pipeline's weights under the names of the original Stable Diffusion repository."""
    unet = {f"model.diffusion_model.{_unet_name(n)}": w for n, w in pipeline.unet.state_dict().items()}
    vae = {}
    for name, weight in pipeline.vae.state_dict().items():
        attention = "attentions" in name and weight.dim() == 2
        vae[f"first_stage_model.{_vae_name(name)}"] = weight[..., None, None] if attention else weight
    text = pipeline.text_encoder.state_dict()
    prefix = "" if next(iter(text)).startswith("text_model.") else "text_model."
    clip = {f"cond_stage_model.transformer.{prefix}{name}": weight for name, weight in text.items()}
    return {name: weight.contiguous().clone() for name, weight in (unet | vae | clip).items()}


def _replace(name: str, pairs: list[tuple[str, str]]) -> str:
    for ours, theirs in pairs:
        name = name.replace(ours, theirs)
    return name


RESNET = [
    ("norm1", "in_layers.0"),
    ("conv1", "in_layers.2"),
    ("norm2", "out_layers.0"),
    ("conv2", "out_layers.3"),
    ("time_emb_proj", "emb_layers.1"),
    ("conv_shortcut", "skip_connection"),
]


def _unet_name(name: str) -> str:
    """For two levels of one layer each: input blocks 0 (conv_in), 1, 2 (downsampler), 3; output blocks 0..3, two a level."""
    part, *rest = name.split(".")
    if part == "time_embedding":
        return _replace(
            name, [("time_embedding.linear_1", "time_embed.0"), ("time_embedding.linear_2", "time_embed.2")]
        )
    if part in ("conv_in", "conv_norm_out", "conv_out"):
        new = {"conv_in": "input_blocks.0.0", "conv_norm_out": "out.0", "conv_out": "out.2"}[part]
        return ".".join([new, *rest])
    if part == "mid_block":
        kind, number = rest[:2]
        place = "middle_block.1" if kind == "attentions" else f"middle_block.{2 * int(number)}"
        tail = ".".join(rest[2:])
        return f"{place}.{tail if kind == 'attentions' else _replace(tail, RESNET)}"
    level, kind, number = int(rest[0]), rest[1], int(rest[2])
    tail = ".".join(rest[3:])
    if part == "down_blocks":
        if kind == "downsamplers":
            return f"input_blocks.{2 * (level + 1)}.0.op.{tail.removeprefix('conv.')}"
        block = f"input_blocks.{2 * level + number + 1}"
    else:
        if kind == "upsamplers":
            return f"output_blocks.{2 * level + 1}.2.{tail}"
        block = f"output_blocks.{2 * level + number}"
    return f"{block}.1.{tail}" if kind == "attentions" else f"{block}.0.{_replace(tail, RESNET)}"


def _vae_name(name: str) -> str:
    if ".up_blocks." in name:  # counted from the other end
        level = int(name.split(".")[2])
        name = name.replace(f".up_blocks.{level}.", f".up.{2 - level}.")
    attention = [
        ("group_norm", "norm"),
        ("to_q", "q"),
        ("to_k", "k"),
        ("to_v", "v"),
        ("to_out.0", "proj_out"),
    ]
    return _replace(
        name,
        [
            ("conv_shortcut", "nin_shortcut"),
            ("conv_norm_out", "norm_out"),
            ("mid_block.attentions.0", "mid.attn_1"),
            ("mid_block.resnets.0", "mid.block_1"),
            ("mid_block.resnets.1", "mid.block_2"),
            ("down_blocks.", "down."),
            ("resnets.", "block."),
            ("downsamplers.0", "downsample"),
            ("upsamplers.0", "upsample"),
            *(attention if "attentions" in name else []),
        ],
    )
