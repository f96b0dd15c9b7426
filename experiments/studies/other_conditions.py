"""Makes what the studies `ink` and `weak_generator` of methods.py need: digits in another style, and a denoiser of less training.

    python experiments/studies/other_conditions.py ink /work/tmp/conditions
    python experiments/studies/other_conditions.py weak_generator /work/tmp/conditions [key=value ...]

`ink` writes scikit-learn's digits in blue ink on cream paper to `<folder>/ink/{train,validation,test}/<class>/`. The embedded
generator has learnt digits in many colours, and draws this style only now and then. `weak_generator` runs
experiments/pretrain.py with a tenth of its usual steps for the denoiser, on digits drawn from fonts, as the embedded generator
was made, and writes `<folder>/weak_generator/pipeline`. It goes on from where it was stopped.
"""

import argparse
import subprocess
import sys
from pathlib import Path

import numpy as np
from draw_by_draw import ROOT
from PIL import Image

from distdiff.commands.configuration import configure
from distdiff.data.datasets import load_dataset
from distdiff.data.images import LabelledImages

INK, PAPER = np.array([25, 45, 140]), np.array([250, 244, 224])
# A tenth of the default steps; the average over steps remembers a tenth as many, so that it does not hold the first weights.
LESS = ("pretrain.denoiser_steps=450", "pretrain.ema_decay=0.99")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["ink", "weak_generator"])
    parser.add_argument("folder", type=Path, help="a folder outside the repository")
    options, more = parser.parse_known_args()
    folder = options.folder.resolve()
    if folder.is_relative_to(ROOT):
        sys.exit(f"{options.folder} lies in the repository, which is no place for data")
    if options.what == "weak_generator":
        sys.exit(pretrain(folder / "weak_generator", more))
    if more:
        parser.error(f"unknown arguments: {' '.join(more)}")
    write_ink(folder / "ink")


def write_ink(folder: Path) -> None:
    """Writes each split of the digits, in ink, to a folder of class folders."""
    config = configure("describe", ["dataset=digits", "dataset.per_class=null"])
    splits = load_dataset(config.dataset)
    for name in ("train", "validation", "test"):
        images: LabelledImages = getattr(splits, name)
        for position in range(len(images)):
            place = folder / name / images.class_names[images.labels[position]] / f"{images.keys[position]}.png"
            place.parent.mkdir(parents=True, exist_ok=True)
            in_ink(images.image(position)).save(place)
        print(f"{name}: {len(images):,} images")


def in_ink(digit: Image.Image) -> Image.Image:
    """The digit, which is light on dark, in ink on paper."""
    light = np.asarray(digit.convert("L"), np.float64)[..., None] / 255
    return Image.fromarray(np.round(PAPER + light * (INK - PAPER)).astype(np.uint8))


def pretrain(folder: Path, more: list[str]) -> int:
    """Pretrains a generator as the embedded one was, with fewer steps of the denoiser; returns the exit status."""
    places = [f"pretrain.output_dir='{folder}/pipeline'", f"paths.output_dir='{folder}/outputs'"]
    command = [sys.executable, "experiments/pretrain.py", *LESS, *places, "logger=none", *more]
    return subprocess.run(command, cwd=ROOT, check=False).returncode


if __name__ == "__main__":
    main()
