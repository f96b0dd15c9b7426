"""Measures what cheaper guidance costs in images: time, Frechet distance, coverage and accuracy, on the digits.

    python experiments/studies/cheaper_guidance.py --seeds 3

Each row makes `guidance=direct` cheaper in one way that changes images: no backward pass through the network (`mpgd`), a small
decoder for the energy, every second step only, bfloat16. The small decoder is an AutoencoderTiny that this script trains to
decode as the embedded generator's own decoder does, on digits drawn from fonts. Data seeds and split are not those of the
published figures. Speeds come from `distdiff benchmark`, and nothing else may run on the machine meanwhile.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

import torch
from diffusers import AutoencoderTiny
from torch.nn import functional as F

import distdiff
from distdiff.commands.configuration import configure
from distdiff.data.datasets import load_dataset

ROOT = Path(__file__).resolve().parents[2]
STEPS, BATCH, DIGITS = 800, 32, 2000
WIDTHS = (16, 16, 16)  # three blocks: two doublings of the side, as in the embedded autoencoder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path, default=ROOT / "outputs/cheaper_guidance")
    options = parser.parse_args()
    decoder = options.out / "small_decoder"
    if not decoder.is_dir():
        train_decoder().save_pretrained(decoder)
    rows = {
        "network gradient": ["guidance=direct"],
        "clean latent alone": ["guidance=mpgd"],
        "small decoder": ["guidance=direct", f"generator.guidance_decoder='{decoder}'"],
        "every second step": ["guidance=direct", "guidance.every=2"],
        "bfloat16": ["guidance=direct", "generator.dtype=bfloat16"],
    }
    written = "{" + ", ".join(f"{name}: {json.dumps(own)}" for name, own in rows.items()) + "}"
    command(
        "benchmark",
        options.out,
        f"benchmark.rows={{none: ['guidance=none'], {written[1:]}",
        f"benchmark.repeats={options.repeats}",
    )
    keys = [f"study.seeds={options.seeds}", "seed=1000", "study.split=validation", "logger=none"]
    command("run", options.out, "study.methods=[original, none]", f"study.rows={written}", *keys)


def train_decoder() -> AutoencoderTiny:
    """An AutoencoderTiny whose decoder maps the embedded generator's latents to what its own decoder makes of them."""
    torch.manual_seed(0)
    generator = distdiff.load_generator("tiny_digits")
    config = configure("train", ["dataset=font_digits", f"dataset.per_class={DIGITS // 10}"])
    images = load_dataset(config.dataset).train
    pixels = torch.stack([images.tensor(position, 32, "crop") for position in range(len(images))])
    with torch.no_grad():
        latents = generator.encode_all(pixels).mean
        targets = torch.cat([generator.decode(part) for part in latents.split(100)])
    tiny = AutoencoderTiny(
        encoder_block_out_channels=WIDTHS,
        decoder_block_out_channels=WIDTHS,
        num_encoder_blocks=(1, 1, 1),
        num_decoder_blocks=(1, 1, 1),
        latent_channels=latents.shape[1],
    )
    optimizer = torch.optim.AdamW(tiny.decoder.parameters(), lr=2e-3)
    for step in range(STEPS):
        chosen = torch.randint(len(latents), (BATCH,))
        loss = F.l1_loss(tiny.decode(latents[chosen]).sample / 2 + 0.5, targets[chosen])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 200 == 0 or step + 1 == STEPS:
            print(f"small decoder: step {step + 1} of {STEPS}, mean difference {loss.item():.3f}", flush=True)
    return tiny


def command(name: str, out: Path, *arguments: str) -> None:
    script = ROOT / "experiments" / f"{name}.py"
    subprocess.run([sys.executable, script, *arguments, f"paths.output_dir='{out}'"], check=True)


if __name__ == "__main__":
    main()
