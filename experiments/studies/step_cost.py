"""Measures time and peak memory of one guided step of each method, with a randomly initialised Stable Diffusion 1.4.

    python experiments/studies/step_cost.py                                        # CPU, float32, 256 x 256 pixels
    python experiments/studies/step_cost.py --device cuda --dtype float16 --resolution 512

Every method runs in its own process, so that the peaks do not mix. `transform` and `transform_official` roll out two
steps. The script writes experiments/results/step_cost_<device>.md.
"""

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
METHODS = ("none", "mpgd", "direct", "freedom", "tfg", "transform", "transform_official")
NUM_CLASSES, NUM_GROUPS, TOKENS = 10, 3, 77


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16", "float16"))
    parser.add_argument("--resolution", type=int, default=256)
    parser.add_argument("--batch-size", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--method", choices=METHODS, help="only this method, in this process; prints JSON")
    parser.add_argument("--checkpointing", action="store_true", help="with --method: gradient checkpointing")
    options = parser.parse_args()
    if options.method:
        print(json.dumps(measure(options)))
        return
    cases = [(method, checkpointing) for method in METHODS for checkpointing in (False, True)]
    cases.remove(("none", True))  # without gradients, nothing is recomputed
    rows = []
    for method, checkpointing in cases:
        rows.append(
            {"method": method, "checkpointing": checkpointing} | in_fresh_process(options, method, checkpointing)
        )
        print(rows[-1], flush=True)
    place = ROOT / "experiments" / "results" / f"step_cost_{options.device}.md"
    place.write_text(page(rows, options), encoding="utf-8")


def in_fresh_process(options: argparse.Namespace, method: str, checkpointing: bool) -> dict[str, float]:
    command = [sys.executable, __file__, "--method", method, *(["--checkpointing"] if checkpointing else [])]
    for name in ("device", "dtype", "resolution", "batch-size", "repeats"):
        command += [f"--{name}", str(getattr(options, name.replace("-", "_")))]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    finished = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=environment)
    return json.loads(finished.stdout.splitlines()[-1])


def measure(options: argparse.Namespace) -> dict[str, float]:
    """The median seconds of the steps after the first, the memory of the models at rest and the peak memory."""
    import torch

    from distdiff.guidance.batch import GuidedBatch

    generator, image_energy = build(options)
    guidance = build_method(options.method)
    schedule = guidance.schedule(generator.num_steps, 0.5)
    prompts = random_prompts(options.batch_size).to(getattr(torch, options.dtype))
    labels = torch.arange(options.batch_size, device=options.device) % NUM_CLASSES
    side = options.resolution // 8
    latents = torch.randn(options.batch_size, 4, side, side, generator=torch.Generator().manual_seed(0))
    latents = latents.to(options.device)
    at_rest, times = memory(options.device), []
    for _ in range(1 + options.repeats):
        generators = [torch.Generator().manual_seed(i) for i in range(options.batch_size)]
        denoiser = generator.denoiser(prompts)
        batch = GuidedBatch(denoiser, image_energy, labels, schedule, generators, generator.dtype)
        started = time.perf_counter()
        guidance.step(latents, schedule.first_guided, batch)
        if options.device == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - started)
        assert batch.guided.all(), "a gradient was not finite"
    peak = memory(options.device)
    return {"seconds": statistics.median(times[1:]), "at_rest": at_rest, "peak": peak}


def build(options: argparse.Namespace):
    """A generator of Stable Diffusion 1.4's size, and the energy of the features of a ResNet-50 at 224 pixels."""
    import torch
    from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
    from torch.nn import functional as F

    from distdiff.classification.networks import resnet50
    from distdiff.encoders.guide import GuideEncoder
    from distdiff.energy.hierarchical import HierarchicalEnergy
    from distdiff.energy.images import ImageEnergy
    from distdiff.generator.latent_diffusion import LatentDiffusion
    from distdiff.prototypes.hierarchical import Prototypes

    torch.manual_seed(0)
    dtype = getattr(torch, options.dtype)
    channels = (128, 256, 512, 512)
    vae = AutoencoderKL(
        block_out_channels=channels,
        layers_per_block=2,
        latent_channels=4,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
    )
    unet = UNet2DConditionModel(sample_size=64, cross_attention_dim=768, attention_head_dim=8)
    scheduler = DDIMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False)
    pipeline = StableDiffusionPipeline(
        vae.to(dtype), None, None, unet.to(dtype), scheduler, None, None, requires_safety_checker=False
    )
    generator = LatentDiffusion(
        pipeline, 50, 7.5, options.resolution, "ddim", gradient_checkpointing=options.checkpointing
    ).to(options.device)
    encoder = GuideEncoder(resnet50(NUM_CLASSES, 224))
    groups = F.normalize(torch.randn(NUM_CLASSES, NUM_GROUPS, encoder.classifier.feature_dim), dim=-1)
    present = torch.ones(NUM_CLASSES, NUM_GROUPS, dtype=torch.long)
    prototypes = Prototypes(F.normalize(groups.mean(1), dim=-1), groups, present)
    return generator, ImageEnergy(encoder, HierarchicalEnergy(prototypes, class_weight=1.0, group_weight=1.0)).to(
        options.device
    )


def build_method(name: str):
    from distdiff.commands.configuration import load_option
    from distdiff.keys import build

    return build(load_option("guidance", name))


def random_prompts(count: int):
    import torch

    from distdiff.generator.conditioning import Conditioning, Prompts

    draw = torch.Generator().manual_seed(1)
    positive = Conditioning(torch.randn(count, TOKENS, 768, generator=draw))
    return Prompts(positive, Conditioning(torch.randn(1, TOKENS, 768, generator=draw)))


def memory(device: str) -> float:
    """The peak so far, in 10^9 bytes: of what torch allocated on the device (`cuda`) or of the process's memory."""
    if device == "cuda":
        import torch

        return torch.cuda.max_memory_allocated() / 1e9
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def page(rows: list[dict], options: argparse.Namespace) -> str:
    import torch

    unguided = next(row["seconds"] for row in rows if row["method"] == "none")
    name = torch.cuda.get_device_name() if options.device == "cuda" else f"{os.cpu_count()} cores, {platform.machine()}"
    lines = [
        "# Cost of one guided step",
        "",
        f"Output of `python {' '.join([str(Path(__file__).relative_to(ROOT)), *sys.argv[1:]])}` on {name}, "
        f"torch {torch.__version__}.",
        "",
        f"The model has Stable Diffusion 1.4's size and random weights; it runs in {options.dtype} at {options.resolution} x "
        f"{options.resolution} pixels, with batch size {options.batch_size} and classifier-free guidance.",
        "The energy is computed from the features of a ResNet-50 at 224 pixels. Each method has the configuration of its YAML "
        "file and runs in a process of its own. *Seconds* is the median time of a guided step. The first step is "
        f"not counted; the number of steps after it is {options.repeats}.",
        "*Peak GB* is the peak of the "
        + ("memory allocated on the device" if options.device == "cuda" else "resident memory of the process")
        + ", in 10^9 bytes. *Above rest GB* is this peak minus the memory that the models take at rest.",
        "",
        "| method | gradient checkpointing | seconds | times unguided | peak GB | above rest GB |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        lines.append(
            f"| {row['method']} | {'yes' if row['checkpointing'] else 'no'} | {row['seconds']:.3g} "
            f"| {row['seconds'] / unguided:.1f} | {row['peak']:.2f} | {row['peak'] - row['at_rest']:.2f} |"
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
