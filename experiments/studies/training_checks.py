"""Checks the training of classifiers: all digits, beside scikit-learn's SVC, and how long it waits for images.

    python experiments/studies/training_checks.py

All 797 training digits, 1,000 steps with the default network, and an SVC on the same split. Lightning's profiler then says
which part of the time the training waits for its next batch: on the digits, and on synthetic JPEGs of about 500x375 pixels for
one epoch without the image cache, which decodes each of them, and for one with it, which was filled before. It writes
experiments/results/training_checks.md. On two idle cores it takes two minutes.
"""

import json
import os
import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from draw_by_draw import RESULTS, ROOT
from reading_speed import synthetic
from sklearn.svm import SVC

from distdiff.data.images import LabelledImages
from distdiff.data.sources.digits import load

WHOLE = ["dataset.per_class=null", "train.steps=1000"]
JPEGS, TRAINED = 2000, 1280  # the others are validation and test images
PROFILED = "trainer.profiler=simple"


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="distdiff-training-") as place:
        digits = train(Path(place), *WHOLE, PROFILED)
        head = [
            "# The training of classifiers, checked",
            "",
            "Output of `python experiments/studies/training_checks.py`.",
            "",
        ]
        page = "\n".join([*head, *accuracies(digits), "", *waiting(digits, Path(place))])
    (RESULTS / "training_checks.md").write_text(f"{page}\n", encoding="utf-8")
    print(page)


def accuracies(run: Path) -> Iterator[str]:
    digits = load(name="digits", split_seed=0)
    ours = json.loads((run / "results.json").read_text())
    pixels, labels = as_vectors(digits.train)
    machine = SVC().fit(pixels, labels)
    theirs = machine.score(*as_vectors(digits.test))
    yield "## All digits"
    yield ""
    yield (
        f"{len(labels)} training images and {len(digits.test)} test images, the same for both. The SVC has scikit-learn's "
        "defaults. One training each, so a difference of about 0.01, six images, means little."
    )
    yield ""
    yield "| classifier | accuracy |"
    yield "|---|---|"
    yield f"| `experiments/train.py {shlex.join(WHOLE)}` | {ours['accuracy']:.3f} |"
    yield f"| `sklearn.svm.SVC()` on the pixels | {theirs:.3f} |"


def as_vectors(images: LabelledImages) -> tuple[np.ndarray, np.ndarray]:
    """The images as rows of grey levels in [0, 1], and their labels."""
    grey = [np.asarray(images.image(index).convert("L"), np.float64).ravel() / 255 for index in range(len(images))]
    return np.stack(grey), images.labels


def waiting(digits: Path, place: Path) -> Iterator[str]:
    folder = f"dataset.root='{synthetic(place / 'jpegs', JPEGS)}'"
    jpegs = ["dataset=imagefolder", folder, "dataset.image_size=64", "train.steps=40"]  # one epoch
    yield "## Waiting for images"
    yield ""
    yield (
        "The part of the time of the training steps in which the training waits for its next batch, as Lightning's profiler "
        f"(`{PROFILED}`) measures it, on {os.cpu_count()} cores with the network of `classifier=small_cnn`. A network that takes "
        "longer waits for a smaller part."
    )
    yield ""
    yield "| images | steps | seconds | waiting |"
    yield "|---|---|---|---|"
    for name, run in {
        "digits": digits,
        f"{TRAINED:,} JPEGs, each decoded once": train(place, *jpegs, "paths.image_cache_gb=0", PROFILED),
        # With another seed, since a classifier that is in the cache is not trained again.
        f"{TRAINED:,} JPEGs, in the image cache": train(place, *jpegs, "seed=1", PROFILED),
    }.items():
        (report,) = run.glob("fit-profile*.txt")
        text = report.read_text(encoding="utf-8")
        _, seconds = of_action(text, "run_training_epoch")
        steps, waited = of_action(text, "train_dataloader_next")
        yield f"| {name} | {steps} | {seconds:.1f} | {waited / seconds:.1%} |"


def of_action(report: str, action: str) -> tuple[int, float]:
    """How often a report of Lightning's profiler has an action, and its seconds in all."""
    found = re.search(rf"{action}\s*\|\s*\S+\s*\|\s*(\d+)\s*\|\s*(\S+)", report)
    return int(found.group(1)), float(found.group(2))


def train(place: Path, *keys: str) -> Path:
    """Trains a classifier in a process of its own. Returns the run's directory."""
    command = [sys.executable, "experiments/train.py", *keys, f"paths.output_dir='{place}'", "logger=none"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{shlex.join(command)} failed: {done.stderr}")
    return (ROOT / re.search(r"^results +(.+)$", done.stdout, re.MULTILINE).group(1)).parent


if __name__ == "__main__":
    main()
