"""Measures how far the same guidance moves images under Euler, as a share of how far it moves them under DDIM.

    git worktree add /tmp/old <commit>
    python experiments/studies/scheduler_scale.py --old /tmp/old

The embedded generator makes the same images (seed 0) with and without guidance, under both schedulers, in an older
checkout and in this one. A move is the root mean square of the difference between guided and unguided pixels, in levels
of 255. The script uses only commands, so that any older checkout will do. It writes
experiments/results/scheduler_scale.md in a few minutes.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
RESULT = ROOT / "experiments" / "results" / "scheduler_scale.md"
SCHEDULERS = ("ddim", "euler")
IMAGES = ("dataset.per_class=2", "expansion.factor=5", "logger=none")
GUIDANCE = {
    "`direct`, ρ = 3": ("guidance=direct", "guidance.rho=3"),
    "`direct`, ρ = 1, unit gradient": ("guidance=direct", "guidance.rho=1", "guidance.gradient_norm=unit"),
    "`transform`, ρ = 10, ε = 0.2 (default)": ("guidance=transform",),
    "`transform`, ρ = 10, no bound": ("guidance=transform", "guidance.epsilon=1000"),
    "`transform` from random, ρ = 10, ε = 0.2": ("guidance=transform", "guidance.init=random"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--old", type=Path, required=True, help="a checkout of the project to compare with")
    options = parser.parse_args()
    trees = (options.old.resolve(), ROOT)
    with tempfile.TemporaryDirectory() as folder:
        moves = [measure(tree, Path(folder) / str(number)) for number, tree in enumerate(trees)]
    RESULT.write_text(page(moves, [commit(tree) for tree in trees]), encoding="utf-8")


def measure(tree: Path, place: Path) -> dict[tuple[str, str], float]:
    """(guidance, scheduler) -> the mean move of the images that the checkout at `tree` makes, in levels."""
    moves = {}
    for scheduler in SCHEDULERS:
        unguided = expand(tree, place, scheduler, ("guidance=none",))
        for name, overrides in GUIDANCE.items():
            guided = expand(tree, place, scheduler, overrides)
            moves[name, scheduler] = np.sqrt(((guided - unguided) ** 2).mean((1, 2, 3))).mean().item()
            print(f"{tree}: {name}, {scheduler}: {moves[name, scheduler]:.3f} levels", flush=True)
    return moves


def expand(tree: Path, place: Path, scheduler: str, overrides: tuple[str, ...]) -> np.ndarray:
    """The images that `expand.py` makes, (n, H, W, 3) float64 in levels, in the order of their names."""
    images = place / "-".join((scheduler, *overrides))
    command = [sys.executable, "experiments/expand.py", *IMAGES, f"generator.scheduler={scheduler}", *overrides]
    command += [f"paths.output_dir={place}", f"hydra.run.dir={images}-run", f"expansion.output_dir={images}"]
    environment = os.environ | {"PYTHONPATH": str(tree), "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
    subprocess.run(command, cwd=tree, env=environment, check=True, stdout=subprocess.DEVNULL)
    files = sorted(images.rglob("*.png"))
    return np.stack([np.asarray(Image.open(file).convert("RGB"), dtype=np.float64) for file in files])


def commit(tree: Path) -> str:
    return subprocess.run(
        ["git", "-C", tree, "rev-parse", "--short", "HEAD"], check=True, capture_output=True, text=True
    ).stdout.strip()


def page(moves: list[dict[tuple[str, str], float]], commits: list[str]) -> str:
    """The result as Markdown."""
    lines = ["# The same guidance under two schedulers", ""]
    lines += [
        "`python experiments/studies/scheduler_scale.py --old <checkout>` measures how far guidance changes 100 images of the",
        "embedded generator, compared with the same images made without guidance. The changes are in levels of 255 (root mean",
        "square over an image's pixels, mean over images). Each share is the change under Euler divided by the change under",
        f"DDIM. *Before* is commit {commits[0]}, in which ρ and ε apply to the scheduler's own latents. *Now* is commit",
        f"{commits[1]}, in which ρ and ε apply to latents of unit variance.",
        "",
    ]
    lines += ["| guidance | DDIM | Euler before | share | Euler now | share |", "|---|---|---|---|---|---|"]
    for name in GUIDANCE:
        before, now = ([found[name, scheduler] for scheduler in SCHEDULERS] for found in moves)
        remark = "" if before[0] == now[0] else f" (before: {before[0]:.2f})"
        cells = [f"{now[0]:.2f}{remark}", f"{before[1]:.2f}", f"{before[1] / before[0]:.2f}"]
        cells += [f"{now[1]:.2f}", f"{now[1] / now[0]:.2f}"]
        lines += [f"| {name} | {' | '.join(cells)} |"]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
