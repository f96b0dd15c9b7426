"""Measures images/s of an expansion by one process, two ranks (trainer=ddp_cpu) and two array splits, one thread each.

    python experiments/studies/speedup.py --repeats 3

The three arrangements take turns on the same 20 digits with the embedded generator. Guide, prototypes, latents and
prompts are cached beforehand, and loading is not counted. Nothing else may run on the machine. The script prints a
table of the rates and of their ratios to one process.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

ROOT = Path(__file__).resolve().parents[2]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--copies", type=int, default=10)
    options = parser.parse_args()
    rates: dict[str, list[float]] = {"one process": [], "two ranks": [], "two splits": []}
    with tempfile.TemporaryDirectory(prefix="distdiff-speedup-") as folder:
        place = Path(folder)
        expand(place, "warm", copies=1)
        for repeat in range(options.repeats):
            for name in rates:
                rates[name].append(rate(place, name, f"{name.replace(' ', '-')}-{repeat}", options.copies))
    print("| | images/s, median | times one process, by turn |")
    print("|---|---|---|")
    for name, values in rates.items():
        times = ", ".join(f"{value / alone:.2f}" for value, alone in zip(values, rates["one process"], strict=True))
        print(f"| {name} | {median(values):.1f} | {times} |")


def rate(place: Path, name: str, target: str, copies: int) -> float:
    if name == "one process":
        expand(place, target, copies)
    elif name == "two ranks":
        expand(place, target, copies, "trainer=ddp_cpu", "trainer.devices=2")
    else:
        splits = [[f"expansion.split={split}", "expansion.total_split=2"] for split in range(2)]
        running = [start(place, target, copies, *split) for split in splits]
        if any(process.wait() for process in running):
            sys.exit("an expansion failed")
    manifest = json.loads((place / target / "manifest.json").read_text())
    processes = 2 if name == "two splits" else 1  # the number of processes whose seconds the manifest adds up
    return manifest["counts"]["images"] / manifest["timing"]["expand"] * processes


def expand(place: Path, target: str, copies: int, *overrides: str) -> None:
    if start(place, target, copies, *overrides).wait():
        sys.exit("an expansion failed")


def start(place: Path, target: str, copies: int, *overrides: str) -> subprocess.Popen:
    command = [sys.executable, "experiments/expand.py", f"expansion.output_dir={place / target}", "logger=none"]
    command += [
        "guidance=direct",
        f"expansion.factor={copies}",
        "encoder.guide.steps=50",
        f"paths.output_dir={place}",
        *overrides,
    ]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL)


if __name__ == "__main__":
    main()
