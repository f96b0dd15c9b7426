"""What happens to an expansion on a full disk, in a removed or read-only directory, and with odd and damaged images.

    python experiments/studies/faults.py > experiments/results/faults.md

The script needs root on Linux (it mounts small tmpfs file systems) and takes some minutes. It prints Markdown: for every
image file, whether it was expanded; for every disk fault, the command's last message, its exit status, the files that it
left, and whether the same command makes the right dataset after the fault is removed. The exit status is 1 if such a
dataset differs from that of an uninterrupted run.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet
from odd_images import write_odd_images
from PIL import Image
from sklearn.datasets import load_digits

ROOT = Path(__file__).resolve().parents[2]


def main() -> None:
    problems = []
    with tempfile.TemporaryDirectory(prefix="distdiff-faults-") as folder:
        place = Path(folder)
        data = place / "data"
        plain_digits(data)
        odd = write_odd_images(data / "train" / "0")
        whole = place / "whole"
        status, said = run(whole, place, data)
        print("# What happens when something is wrong\n\nOutput of `python experiments/studies/faults.py`.\n")
        print("## Image files\n")
        print(
            f"An uninterrupted expansion of 24 plain and {len(odd)} odd image files ended with exit status {status}.\n"
        )
        print("| file | what happened |\n|---|---|")
        for name, fate in fates(whole, odd).items():
            print(f"| {name} | {fate} |")
        print(f"\nThe summary that the expansion printed:\n\n```\n{summary(said)}\n```\n\n## Disks\n")
        problems += [f"exit status {status} with odd images"] if status else []
        for title, cause, mend in (
            ("Full disk (tmpfs of 1 MB, mostly taken)", None, grow),
            ("Directory removed while running", remove, nothing),
            ("Read-only while running (a read-only bind mount over it)", read_only, writable),
        ):
            problems += disk(title, cause, mend, place, data, whole)
    print(
        "\n".join(f"PROBLEM: {problem}" for problem in problems)
        or "After each fault, the finished dataset equals the dataset of the uninterrupted run."
    )
    sys.exit(1 if problems else 0)


def disk(title: str, cause: Callable | None, mend: Callable, place: Path, data: Path, whole: Path) -> list[str]:
    """Runs an expansion into a fault, removes the fault and runs the same command again.

    Returns `[title]` if anything went wrong, for example if the dataset differs from that in `whole`; otherwise [].
    """
    mounted = place / f"disk-{title.split()[0].lower()}"
    mounted.mkdir()
    size = "1m" if cause is None else "64m"
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(mounted)], check=True)
    try:
        if cause is None:
            (mounted / "ballast").write_bytes(bytes(900 * 1024))
        target = mounted / "expanded"
        status, said = run(target, place, data, cause)
        left = images(target) if target.is_dir() else []
        torn = [path.name for path in left if not loads(path)]
        stray = sorted(path.name for path in mounted.rglob("*") if path.is_file() and path.name.startswith("."))
        before = {path: path.stat().st_mtime_ns for path in left}
        print(f"### {title}\n\n```\n{said.strip().splitlines()[-1]}\n```\n")
        print(
            f"The command ended with exit status {status}. It left {len(left)} images, {len(torn)} of them incomplete. "
            f"Dot files that it left: {', '.join(stray) or 'none'}."
        )
        mend(mounted)
        again, _ = run(target, place, data)
        rewritten = sum(path.stat().st_mtime_ns != moment for path, moment in before.items())
        same = names(target) == names(whole) and all(
            np.abs(pixels(target / name) - pixels(whole / name)).max() <= 1
            for name in names(whole)
            if name.endswith("png")
        )
        print(
            f"After the fault was removed, the same command ended with exit status {again}. "
            f"It rewrote {rewritten or 'none'} of the finished images, "
            f"and the dataset {'equals' if same else 'differs from'} the dataset of the uninterrupted run.\n"
        )
    finally:
        subprocess.run(["umount", str(mounted)], check=True)
    fine = (status, again, torn, rewritten, same) == (2, 0, [], 0, True)
    return [] if fine and "Traceback" not in said else [title]


def run(target: Path, place: Path, data: Path, fault: Callable | None = None) -> tuple[int, str]:
    """Expands into `target`, calls `fault(target)` once some images exist; returns the exit status and the output."""
    command = [sys.executable, "experiments/expand.py", "dataset=imagefolder", f"dataset.root={data}"]
    command += [
        "dataset.image_size=32",
        "generator.num_steps=6",
        "encoder.guide.steps=20",
        "logger=none",
        "expansion.factor=3",
        "guidance=direct",
    ]
    command += [f"expansion.output_dir={target}", "expansion.batch_size=4", f"paths.output_dir={place}/outputs"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with tempfile.TemporaryFile("w+") as output:
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=output, stderr=subprocess.STDOUT)
        while process.poll() is None:
            if fault is not None and len(images(target)) >= 8:
                fault(target)
                fault = None
            time.sleep(0.005)
        output.seek(0)
        return process.returncode, output.read().replace(str(place), "<folder>")


def remove(target: Path) -> None:
    shutil.rmtree(target, ignore_errors=True)


def read_only(target: Path) -> None:
    """Mounts `target` on itself read-only; the disk cannot become read-only while the run holds its lock open."""
    subprocess.run(["mount", "--bind", str(target), str(target)], check=True)
    subprocess.run(["mount", "-o", "remount,bind,ro", str(target)], check=True)


def writable(mounted: Path) -> None:
    subprocess.run(["umount", str(mounted / "expanded")], check=True)


def grow(mounted: Path) -> None:
    subprocess.run(["mount", "-o", "remount,size=64m", str(mounted)], check=True)


def nothing(_: Path) -> None:
    pass


def plain_digits(data: Path) -> None:
    digits = load_digits()
    for split in ("train", "validation", "test"):
        for label in (0, 1):
            folder = data / split / str(label)
            folder.mkdir(parents=True)
            for number, digit in enumerate(digits.images[digits.target == label][:12]):
                Image.fromarray((digit * 15).astype(np.uint8)).resize((32, 32)).save(folder / f"{number:02d}.png")


def fates(whole: Path, odd: list[str]) -> dict[str, str]:
    """File name -> `expanded`, or `left out` with the reason, as the expanded dataset records it."""
    made = set(pyarrow.parquet.read_table(whole / "metadata.parquet")["source"].to_pylist())
    failed = whole / "failures.parquet"
    lost = pyarrow.parquet.read_table(failed).to_pylist() if failed.is_file() else []
    reasons = {row["source"]: f"left out: {row['reason']}" for row in lost}
    return {name: "expanded" if name in made else reasons[name] for name in odd}


def summary(said: str) -> str:
    return "\n".join(line for line in said.splitlines() if "read" in line or "failed" in line or "expanded" in line)


def images(folder: Path) -> list[Path]:
    return list(folder.glob("[!.]*/*.png"))


def names(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def pixels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path)).astype(int)


def loads(path: Path) -> bool:
    try:
        pixels(path)
    except (OSError, SyntaxError):
        return False
    return True


if __name__ == "__main__":
    main()
