"""Measures whether images of a long expansion cost more than those of a short one: processor time and memory.

    python experiments/studies/long_expansion.py

Expands the digits with the embedded generator in few steps, in processes of their own with one thread each. An expansion of
100 images, whose guide, prototypes, latents and prompts are cached, says what a process takes besides images; that is
subtracted from the others. The sizes take turns.
"""

import argparse
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

ROOT = Path(__file__).resolve().parents[2]
BASE, SIZES = 100, (1_000, 10_000)
SOURCES = 100  # 10 of each class


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=4, help="denoising steps of the full schedule")
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    seconds: dict[int, list[float]] = {size: [] for size in SIZES}
    peaks: dict[int, list[int]] = {size: [] for size in (BASE, *SIZES)}
    with tempfile.TemporaryDirectory(prefix="distdiff-long-") as folder:
        expand(Path(folder), "warm", BASE, options.steps)
        for repeat in range(options.repeats):
            least, peak = expand(Path(folder), f"{BASE}-{repeat}", BASE, options.steps)
            peaks[BASE].append(peak)
            for size in SIZES:
                spent, peak = expand(Path(folder), f"{size}-{repeat}", size, options.steps)
                seconds[size].append((spent - least) / (size - BASE))
                peaks[size].append(peak)
    ratios = [long / short for short, long in zip(*seconds.values(), strict=True)]
    print("| images | processor ms an image, median | peak memory MB, median |")
    print("|---|---|---|")
    for size in (BASE, *SIZES):
        cost = f"{1000 * median(seconds[size]):.2f}" if size in seconds else "–"
        print(f"| {size:,} | {cost} | {median(peaks[size]) / 1e6:,.0f} |")
    print(f"10,000 against 1,000, by turn: {', '.join(f'{ratio:.3f}' for ratio in ratios)}")


def expand(place: Path, name: str, images: int, steps: int) -> tuple[float, int]:
    """The processor seconds and the peak of resident memory in bytes of an expansion into an empty directory."""
    command = [sys.executable, ROOT / "experiments/expand.py", f"dataset.per_class={SOURCES // 10}", "logger=none"]
    command += [f"expansion.factor={images // SOURCES}", f"generator.num_steps={steps}", "encoder.guide.steps=50"]
    command += [f"paths.output_dir={place}/outputs", f"expansion.output_dir={place}/{name}", "guidance=direct"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", "CUDA_VISIBLE_DEVICES": ""}
    log = place / f"{name}.txt"
    with open(log, "w") as output:
        process = subprocess.Popen(command, env=environment, stdout=output, stderr=subprocess.STDOUT)
        _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit(log.read_text())
    assert isinstance(usage, resource.struct_rusage)
    return usage.ru_utime + usage.ru_stime, 1024 * usage.ru_maxrss


if __name__ == "__main__":
    main()
