"""Measures what an expanded image costs besides the model: planning, encoding, writing, merging, resuming, on one core.

    python experiments/studies/expansion_overhead.py

A stand-in for the model returns images that were drawn beforehand. For each format, an expansion makes half of the
images and stops as if it had been killed. A second run finishes it, and a third finds nothing left to do. The script
writes experiments/results/expansion_overhead.md.
"""

import argparse
import contextlib
import os
import platform
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"
os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})

ROOT = Path(__file__).resolve().parents[2]
COPIES, SIZE, BATCH = 10, 32, 8
CASES = {
    "imagefolder, PNG": [],
    "imagefolder, JPEG": ["expansion.image_format=jpeg"],
    "imagefolder, WebP lossless": ["expansion.image_format=webp"],
    "webdataset, PNG": ["expansion.format=webdataset"],
    "parquet, PNG": ["expansion.format=parquet"],
}
STAGES = {"read back": "rows", "make and write": "predict", "finish": "finish"}


class Killed(BaseException):
    pass


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=10_000)
    options = parser.parse_args()
    rows = []
    for name, keys in [("imports", []), *CASES.items()]:  # the first measurement pays for the imports
        with tempfile.TemporaryDirectory(prefix="distdiff-overhead-") as folder:
            rows.append(measure(name, keys, Path(folder) / "expanded", options.images))
        print(rows[-1], flush=True)
    rows = rows[1:]
    (ROOT / "experiments" / "results" / "expansion_overhead.md").write_text(
        page(rows, options.images), encoding="utf-8"
    )


def measure(name: str, keys: list[str], folder: Path, images: int) -> dict[str, float]:
    """Milliseconds per image: total by clock and by processor, for each stage, and for a run with nothing to do."""
    clock, spent = (time.perf_counter, time.process_time), Counter()
    with timed(spent):
        started = [now() for now in clock]
        with contextlib.suppress(Killed):
            job(keys, folder, images, stop_after=images // 2).run("first half")
        job(keys, folder, images).run("second half")
        wall, processor = (now() - then for now, then in zip(clock, started, strict=True))
    started = time.perf_counter()
    job(keys, folder, images).run("nothing")
    again = time.perf_counter() - started
    seconds = {"wall": wall, "processor": processor, **spent, "again": again}
    return {"format": name} | {stage: 1000 * value / images for stage, value in seconds.items()}


class timed:
    """A context that adds up the seconds spent in each stage of `STAGES`."""

    def __init__(self, spent: Counter) -> None:
        from lightning import Trainer

        from distdiff.store.directory import ExpandedDirectory

        self.spent = spent
        self.kept = {
            stage: (owner, getattr(owner, STAGES[stage]))
            for stage, owner in zip(STAGES, (ExpandedDirectory, Trainer, ExpandedDirectory), strict=True)
        }

    def __enter__(self) -> None:
        for stage, (owner, function) in self.kept.items():
            setattr(owner, STAGES[stage], self._timing(stage, function))

    def __exit__(self, *_: object) -> None:
        for stage, (owner, function) in self.kept.items():
            setattr(owner, STAGES[stage], function)

    def _timing(self, stage: str, function):
        def call(*arguments, **keywords):
            started = time.perf_counter()
            try:
                return function(*arguments, **keywords)
            finally:
                self.spent[stage] += time.perf_counter() - started

        return call


def job(keys: list[str], folder: Path, images: int, stop_after: int | None = None):
    """An expansion of `images / COPIES` sources in ten classes by a stand-in for the model.

    With `stop_after`, it raises `Killed` before it makes more than that many images.
    """
    import numpy as np
    import torch

    from distdiff.commands.configuration import configure
    from distdiff.data.images import LabelledImages
    from distdiff.expansion.job import ExpansionJob
    from distdiff.methods.synthesis import Synthesized, Synthesizer

    class StandIn(Synthesizer):
        def __init__(self) -> None:
            super().__init__()
            self.images = torch.rand(BATCH, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
            self.made = 0

        def forward(self, items) -> Synthesized:
            self.made += len(items)
            if stop_after is not None and self.made > stop_after:
                raise Killed
            columns = {"energy_before": 1.0, "energy_after": 0.5, "group": 1, "gradient_finite": True}
            return Synthesized(self.images, {column: [value] * len(items) for column, value in columns.items()})

    given = [f"expansion.factor={COPIES}", f"expansion.batch_size={BATCH}", "logger=none", *keys]
    labels = np.arange(images // COPIES) % 10
    names = tuple(f"image_{i}.png" for i in range(len(labels)))
    sources = LabelledImages("any", tuple(map(str, range(10))), labels, names, read=None, indices=labels)
    made = ExpansionJob("none", 0, sources, {"seed": 0}, lambda title: StandIn(), folder, configure("expand", given))
    made.claim()
    return made


def page(rows: list[dict], images: int) -> str:
    import torch

    names = ["format", "in all", "processor", *STAGES, "nothing to do"]
    lines = [
        "# What an expanded image costs besides the model",
        "",
        f"Output of `python {' '.join([str(Path(__file__).relative_to(ROOT)), *sys.argv[1:]])}` on one core of {os.cpu_count()} "
        f"({platform.machine()}, torch {torch.__version__}, load {os.getloadavg()[0]:.1f}: shared with other work).",
        "",
        f"A stand-in for the model makes {images:,} noise images of {SIZE}x{SIZE} pixels in batches of {BATCH}.",
        "The expansion is stopped in the middle, as by SIGKILL, and then resumed. All columns are in milliseconds per image.",
        "*In all* is the clock time of planning, Lightning, encoding, writing, reading back finished images and merging.",
        "*Read back*, *make and write* and *finish* are parts of this clock time. *Processor* is the processor time of the",
        "process. *Nothing to do* is the clock time of another run of the same expansion after all images are finished.",
        "",
        f"| {' | '.join(names)} |",
        f"|{'---|' * len(names)}",
    ]
    for row in rows:
        values = [row[key] for key in ("wall", "processor", *STAGES, "again")]
        lines.append(f"| {row['format']} | " + " | ".join(f"{value:.2f}" for value in values) + " |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
