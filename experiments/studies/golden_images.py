"""Runs the same small expansions with two checkouts of the project and compares the images byte by byte.

    git worktree add /tmp/old <commit>
    python experiments/studies/golden_images.py --old /tmp/old --new . [--write experiments/results/golden_images.md]

The script checks that a restructuring changes no image. It uses only commands and configuration keys, because modules
may move. Every case runs in both checkouts, one after the other, on one thread, each time with its own output directory
and cache. The names and bytes of the image files, those columns of `COLUMNS` that both checkouts write, and the
accuracies of the study must be equal. A column that only one checkout writes is mentioned as a remark. The exit status
is 1 if anything else differs or a command fails. `--cases study,pad_direct` runs only these cases; `--keep` keeps their
outputs.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pyarrow.parquet
from PIL import Image

METADATA, RESULTS = "metadata.parquet", "results.json"
# File names are not among them, because the files themselves are compared by name.
COLUMNS = ("label", "class_name", "source", "copy", "seed", "strength", "prompt")
COLUMNS += ("energy_before", "energy_after", "group", "gradient_finite")
IMAGES = (".png", ".jpg", ".webp")
LAST_LINES = 5  # so many lines of a failed command's error output are shown
SHOWN = 3  # at most this many names of differing files are shown
ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",  # with more threads, sums are added in another order and may differ
    "OMP_WAIT_POLICY": "PASSIVE",
    "GOMP_SPINCOUNT": "2000",
    "WANDB_MODE": "offline",
    "HF_HUB_OFFLINE": "1",
}

SHORT = ("dataset.per_class=2", "expansion.factor=2", "generator.num_steps=10", "logger=none")
STUDY = "study"
METHODS = "original,randaugment,affine,none,direct,transform,transform_official,freedom,mpgd,tfg"


def commands(inputs: Path) -> dict[str, list[str]]:
    """Case -> its script, the overrides of `SHORT` and its own ones; `inputs` is the folder that `make_inputs` fills."""
    folder = ["dataset=imagefolder", f"dataset.root={inputs}/folder", "dataset.per_class=null", "dataset.image_size=32"]
    expansions = {
        "transform_random_unit": ["guidance=transform", "guidance.init=random", "guidance.gradient_norm=unit"],
        "direct_increasing": [
            *("guidance=direct", "guidance.rho_schedule=increasing", "guidance.period=3"),
            "expansion.strength=[0.6,0.9]",
        ],
        "direct_balance": [
            *("guidance=direct", "expansion.strength={low:0.5,high:0.9}", "expansion.balance=true"),
            *("dataset.per_class=null", "dataset.max_images=23"),  # classes of two and of three images
        ],
        "tfg_smoothed": ["guidance=tfg", "guidance.recurrence=2", "guidance.gamma=0.2", "guidance.num_samples=2"],
        "class_only": ["prototype=class_only", "guidance=direct", "guidance.rho=2"],
        # A class has more images than groups, so that there is something to cluster.
        "group_only": ["prototype=group_only", "guidance=direct", "guidance.rho=2", "dataset.per_class=5"],
        "groups_auto": ["prototype.num_groups=auto", "guidance=direct", "dataset.per_class=5"],
        "pad_official": [*folder, "dataset.fit=pad", "guidance=transform_official"],  # random crops of sources
        "pad_direct": [*folder, "dataset.fit=pad", "guidance=direct"],
        "crop_direct": [*folder, "dataset.fit=crop", "guidance=direct"],
        "unipc": ["generator.scheduler=unipc", "guidance=direct"],
        "euler": ["generator.scheduler=euler", "guidance=direct"],
        "float64": ["generator.dtype=float64", "guidance=direct"],
        "prompts_file": [f"dataset.prompts_file={inputs}/prompts.json", "guidance=direct"],
        "jpeg": ["expansion.image_format=jpeg", "guidance=direct"],
        "two_ranks": ["trainer=ddp_cpu", "trainer.devices=2", "guidance=direct"],
    }
    study = ["run.py", *SHORT, "measure.judge_steps=20", "study.seeds=1", f"study.methods=[{METHODS}]"]
    return {STUDY: study} | {name: ["expand.py", *SHORT, *own] for name, own in expansions.items()}


@dataclass
class Comparison:
    """How one dataset of a case, or the accuracies of the study, compare between both trees."""

    name: str
    images: int = 0
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def cells(self) -> tuple[str, str, str, str]:
        remarks = "; ".join((*self.problems, *self.notes))
        return self.name, str(self.images or ""), "no" if self.problems else "yes", remarks


def main() -> None:
    options = parse()
    for tree in (options.old, options.new):
        check_import(tree)
    commits = [commit(options.old), commit(options.new)]
    place, begun, rows = Path(tempfile.mkdtemp(prefix="distdiff-golden-")), time.monotonic(), []
    try:
        make_inputs(place)
        for case in options.cases:
            for row in compare_case(case, options.old, options.new, place):
                rows.append(row)
                print("{:32}{:>5}  {:4} {}".format(*row.cells).rstrip(), flush=True)
    finally:
        if options.keep:
            print(f"outputs: {place}")
        else:
            shutil.rmtree(place)
    different, seconds = sum(bool(row.problems) for row in rows), time.monotonic() - begun
    total = f"{sum(row.images for row in rows)} images, {len(rows) - different} of {len(rows)} lines identical"
    print(f"{total}, {seconds / 60:.0f} minutes")
    if options.write:
        options.write.write_text(page(rows, commits, total), encoding="utf-8")
    sys.exit(1 if different else 0)


def parse() -> argparse.Namespace:
    known = list(commands(Path()))
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--old", type=Path, required=True, help="a checkout of the project")
    parser.add_argument("--new", type=Path, required=True, help="another checkout")
    parser.add_argument("--write", type=Path, help="the file for a Markdown page of the result")
    parser.add_argument("--cases", default=",".join(known), help="which of these cases to run (default: %(default)s)")
    parser.add_argument("--keep", action="store_true", help="keep the outputs")
    options = parser.parse_args()
    options.old, options.new = options.old.resolve(), options.new.resolve()
    options.cases = options.cases.split(",")
    if strange := [case for case in options.cases if case not in known]:
        parser.error(f"there is no case {strange[0]!r}; one of {', '.join(known)}")
    return options


def check_import(tree: Path) -> None:
    """Ends the script if commands that run in `tree` would import the package of another tree."""
    # -P leaves the current directory out of sys.path, as it is when a command runs.
    probe = [sys.executable, "-P", "-c", "import distdiff; print(distdiff.__file__)"]
    done = subprocess.run(probe, cwd=tree, env=environment(tree), capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{tree}: cannot import distdiff there: {last_lines(done.stderr)}")
    if not Path(done.stdout.strip()).resolve().is_relative_to(tree):
        sys.exit(f"{tree}: distdiff is imported from {done.stdout.strip()}, which is not below it")


def environment(tree: Path) -> dict[str, str]:
    """The environment of commands in `tree`; its PYTHONPATH keeps both from importing the same installed package."""
    return os.environ | ENVIRONMENT | {"PYTHONPATH": str(tree)}


def commit(tree: Path) -> str:
    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", "-C", tree, *arguments], check=True, capture_output=True, text=True
        ).stdout.strip()

    return git("rev-parse", "HEAD") + (" with uncommitted changes" if git("status", "--porcelain") else "")


def make_inputs(inputs: Path) -> None:
    """Writes two classes of four images of unequal sizes, and a file with two prompt templates for each digit."""
    rng = np.random.default_rng(0)
    for name in ("one", "other"):
        (inputs / "folder" / name).mkdir(parents=True)
        for number in range(4):
            height, width = rng.integers(36, 80, size=2)
            pixels = rng.integers(0, 256, size=(height, width, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(inputs / "folder" / name / f"{number}.png")
    sentences = {str(digit): ["a photo of the digit {}.", "a {}, drawn in ink."] for digit in range(10)}
    (inputs / "prompts.json").write_text(json.dumps(sentences), encoding="utf-8")


def compare_case(case: str, old: Path, new: Path, place: Path) -> list[Comparison]:
    """Runs a case in both trees; returns a comparison for each dataset and, for the study, one for its accuracies."""
    script, *overrides = commands(place)[case]
    run_dirs, failures = [], []
    for side, tree in (("old", old), ("new", new)):
        outputs = place / side / case
        run_dirs.append(outputs / "run")
        command = [sys.executable, f"experiments/{script}", *overrides]
        command += [f"paths.output_dir={outputs}", f"hydra.run.dir={outputs}/run"]
        done = subprocess.run(command, cwd=tree, env=environment(tree), capture_output=True, text=True)
        if done.returncode:
            failures.append(f"{side}: exit status {done.returncode}: {last_lines(done.stderr)}")
    if failures:
        return [Comparison(case, problems=failures)]
    if case != STUDY:
        return [compare(case, *(run_dir / "expanded" for run_dir in run_dirs))]
    names = sorted({link.name for run_dir in run_dirs for link in (run_dir / "expanded").iterdir()})
    rows = [compare(f"{case}/{name}", *(run_dir / "expanded" / name for run_dir in run_dirs)) for name in names]
    accuracies = [accuracies_of(run_dir) for run_dir in run_dirs]
    problems = [] if accuracies[0] == accuracies[1] else [f"accuracies: {accuracies[0]}, now {accuracies[1]}"]
    return [*rows, Comparison(f"{case}: {len(accuracies[0])} accuracies", problems=problems)]


def compare(name: str, old: Path, new: Path) -> Comparison:
    """Compares two expanded datasets in file names, bytes and the metadata columns that both have."""
    for folder in (old, new):
        if not (folder / METADATA).is_file():
            return Comparison(name, problems=[f"{folder} has no {METADATA}"])
    before, now = images_of(old), images_of(new)
    result = Comparison(name, images=len(before))
    if not before:
        result.problems.append("no images")
    if before.keys() != now.keys():
        result.problems.append(f"file names differ: {some(before.keys() ^ now.keys())}")
    if changed := [file for file in before.keys() & now.keys() if before[file] != now[file]]:
        result.problems.append(f"{len(changed)} images differ: {some(changed)}")
    columns, current = columns_of(old), columns_of(new)
    shared = [column for column in COLUMNS if column in columns and column in current]
    if differing := [column for column in shared if columns[column] != current[column]]:
        result.problems.append(f"metadata differ: {', '.join(differing)}")
    result.notes += [f"only the old tree has column {column}" for column in columns if column not in current]
    result.notes += [f"only the new tree has column {column}" for column in current if column not in columns]
    return result


def images_of(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.suffix in IMAGES)
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def columns_of(folder: Path) -> dict[str, list[str]]:
    """Column -> the `repr` of its values, in the order of file names. A `repr` is exact, and equal for any two NaNs."""
    table = pyarrow.parquet.read_table(folder / METADATA).sort_by("file_name")
    return {column: [repr(value) for value in table[column].to_pylist()] for column in table.column_names}


def accuracies_of(run_dir: Path) -> dict[str, list[float]]:
    rows = json.loads((run_dir / RESULTS).read_text(encoding="utf-8"))["rows"]
    return {row["method"]: row["accuracy"] for row in rows}


def some(names: set[str] | list[str]) -> str:
    return ", ".join(sorted(names)[:SHOWN]) + (", …" if len(names) > SHOWN else "")


def last_lines(text: str) -> str:
    return " | ".join(line.strip() for line in text.strip().splitlines()[-LAST_LINES:])


def page(rows: list[Comparison], commits: list[str], total: str) -> str:
    """The result as Markdown."""
    packages = ", ".join(f"{name} {version(name)}" for name in ("torch", "diffusers"))
    lines = ["# The same images before and after a restructuring", ""]
    lines += [
        f"Written by `python experiments/studies/golden_images.py {' '.join(sys.argv[1:])}` (CPU, one thread, {packages})."
    ]
    lines += ["The images were compared byte by byte. The script holds the configuration overrides of each case.", ""]
    lines += [f"- old: {commits[0]}", f"- new: {commits[1]}", f"- {total}", ""]
    lines += ["| case | images | identical | remarks |", "|---|---|---|---|"]
    lines += [f"| {' | '.join(cell.replace('|', '/') for cell in row.cells)} |" for row in rows]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
