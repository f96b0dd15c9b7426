"""Measures how peak memory grows with the number of source images, with 2,000 and 20,000 of them.

    python experiments/studies/peak_memory.py [--write experiments/results/peak_memory.md]

Each case runs `expand.py` in its own process on digits drawn from fonts (`dataset=font_digits`). The process is the first
of many splits, so it reads and encodes all sources but makes few images. The result is the peak resident memory of the
process (`ru_maxrss`). The study takes about ten minutes on two cores.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
COUNTS = (2_000, 20_000)
MADE = 200  # images that each case makes
CASES = {
    "img2img, latents of all sources": ("guidance=none", "generator.num_steps=4"),
    "augmentation, no generator": ("method=augmentation",),
}
LIMIT = 300  # MB by which peak memory may grow


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--resolution", type=int, default=96, help="pixels per side; sources and latents grow with it")
    parser.add_argument("--write", type=Path, help="the file for a Markdown page of the results")
    options = parser.parse_args()
    rows = []
    for name, keys in CASES.items():
        peaks = [peak(count, (*keys, f"generator.resolution={options.resolution}")) for count in COUNTS]
        rows.append((name, *peaks))
        print(f"{name}: {peaks[0]:.0f} MB, {peaks[1]:.0f} MB", flush=True)
    text = page(rows, options.resolution)
    print(text)
    if options.write:
        options.write.write_text(text, encoding="utf-8")
    sys.exit(any(large - small > LIMIT for _, small, large in rows))


def peak(count: int, keys: tuple[str, ...]) -> float:
    """The peak memory of an expansion of `count` sources, in MB."""
    with tempfile.TemporaryDirectory(prefix="distdiff-memory-") as folder:
        given = [
            *("dataset=font_digits", f"dataset.num_images={round(count / 0.64)}", "dataset.per_class=null"),
            *("expansion.factor=1", "expansion.split=0", f"expansion.total_split={count // MADE}", "logger=none"),
            *(f"dataset.max_images={count}", f"paths.output_dir={folder}", *keys),
        ]
        if "method=augmentation" not in keys:
            given.append("encoder.guide.steps=20")
        environment = os.environ | {"OMP_NUM_THREADS": "2", "OMP_WAIT_POLICY": "PASSIVE"}
        command = [sys.executable, str(ROOT / "experiments" / "expand.py"), *given]
        with open(Path(folder) / "log.txt", "w+") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
            _, status, usage = os.wait4(process.pid, 0)
            if status:
                log.seek(0)
                raise SystemExit(log.read()[-2000:])
        return usage.ru_maxrss / 1024


def page(rows: list[tuple[str, float, float]], resolution: int) -> str:
    lines = "".join(f"| {name} | {a:.0f} | {b:.0f} | {b - a:+.0f} |\n" for name, a, b in rows)
    return f"""# Peak memory against the number of sources

`python experiments/studies/peak_memory.py --resolution {resolution}` measures the peak resident memory, in MB, of
`expand.py` as the first split of an array job. This split makes {MADE} images, but it reads all sources. For img2img,
all sources also pass through the encoder φ and are encoded into latents. The last column is the difference of the two
peaks.

| case | {COUNTS[0]:,} sources | {COUNTS[1]:,} sources | difference |
|---|---|---|---|
{lines}"""


if __name__ == "__main__":
    main()
