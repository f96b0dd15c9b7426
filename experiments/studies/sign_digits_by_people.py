r"""Splits Sign Language Digits by people, and pretrains a generator on people whom the study never sees.

    python experiments/studies/sign_digits_by_people.py split <sign_digits> <folder>
    python experiments/studies/sign_digits_by_people.py pretrain <folder> class <pipeline> [key=value ...]
    python experiments/studies/sign_digits_by_people.py pretrain <folder> single <pipeline> [key=value ...]

The dataset does not say who is in a photo. The numbers in the file names do: each person showed 0 to 9 in turn, so a run of
numbers belongs to one person as long as the class rises. A run ends where the class does not rise, or where the number rises
by more than three. Only runs that hold every class exactly once are used, since each of them is surely one person; the
others are counted, and left out. Somebody who came twice would count as two people.

The generators of the study were made by (about ten minutes of one core each, longer beside other work)

    export OMP_NUM_THREADS=1
    python experiments/studies/sign_digits_by_people.py split /work/shared/data/sign_digits /work/tmp/sign_people
    for kind in class single; do
        nice -n 19 python experiments/studies/sign_digits_by_people.py pretrain /work/tmp/sign_people $kind \
            /work/tmp/sign_generators/$kind/pipeline paths.output_dir=/work/tmp/sign_generators/$kind/outputs \
            pretrain.autoencoder_steps=600 pretrain.denoiser_steps=2000
    done

`split` copies `pretrain/<class>/` and `study/{train,validation,test}/<class>/` into an empty folder outside the repository,
and writes `people.csv`. `pretrain` runs experiments/pretrain.py on `pretrain/`, with one prompt for each class or with one
prompt for all; it goes on from where it was stopped. A study takes `study/` as `dataset=imagefolder`.
"""

import argparse
import csv
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
PARTS = ("pretrain", "study/train", "study/validation", "study/test")
JUMP = 3  # how much higher the number of a person's next photo may be
KINDS = ("class", "single")


@dataclass(frozen=True)
class Photo:
    """A file, the number in its name, and the position of its class among all classes."""

    path: Path
    number: int
    label: int


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    split = commands.add_parser("split")
    split.add_argument("source", type=Path, help="a folder with one folder for each class")
    split.add_argument("target", type=Path, help="an empty or new folder outside the repository")
    split.add_argument(
        "--people", type=int, nargs=3, default=(120, 20, 18), help="for pretraining, training, validation"
    )
    split.add_argument("--seed", type=int, default=0, help="who is in which part")
    pretrain = commands.add_parser("pretrain")
    pretrain.add_argument("folder", type=Path, help="what split made")
    pretrain.add_argument("prompts", choices=KINDS)
    pretrain.add_argument("pipeline", type=Path, help="the folder of the pipeline to be made")
    options, more = parser.parse_known_args()
    if options.command == "split":
        if more:
            parser.error(f"unknown arguments: {' '.join(more)}")
        split_by_people(options.source, options.target, options.people, options.seed)
    else:
        sys.exit(pretrain_on(options.folder, options.prompts, options.pipeline, more))


def split_by_people(source: Path, target: Path, numbers: Sequence[int], seed: int) -> None:
    """Copies the photos of `numbers` people into the first parts, and those of all others into `study/test`."""
    if target.resolve().is_relative_to(ROOT):
        sys.exit(f"{target} lies in the repository, which is no place for data")
    if target.exists() and any(target.iterdir()):
        sys.exit(f"{target} is not empty")
    classes, photos = photos_below(source)
    runs = runs_of(photos)
    people = [run for run in runs if [photo.label for photo in run] == list(range(len(classes)))]
    if len(people) <= sum(numbers):
        sys.exit(
            f"{source}: {len(people)} runs of {len(classes)} classes, too few for --people {numbers} and a test part"
        )
    counts = [*numbers, len(people) - sum(numbers)]
    order = np.random.default_rng(seed).permutation(len(people)).tolist()
    part_of = dict(zip(order, np.repeat(PARTS, counts).tolist(), strict=True))
    rows = []
    for person, run in enumerate(people):
        for photo in run:
            place = Path(part_of[person], classes[photo.label], photo.path.name)
            (target / place).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(photo.path, target / place)
            rows.append([place.as_posix(), classes[photo.label], person, part_of[person]])
    with open(target / "people.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["file_name", "label", "person", "part"])
        writer.writerows(rows)
    print(
        f"{len(photos):,} photos in {len(runs)} runs; {len(people)} of these are one person each, with every class once"
    )
    lengths = Counter(len(run) for run in runs) - Counter(len(run) for run in people)
    told = ", ".join(f"{count} of {length}" for length, count in sorted(lengths.items()))
    print(
        f"left out: {len(photos) - len(rows):,} photos in {len(runs) - len(people)} runs (runs of photos: {told or 'none'})"
    )
    for part, number in Counter(part_of.values()).items():
        print(f"{part}: {number} people, {number * len(classes):,} photos")


def photos_below(source: Path) -> tuple[list[str], list[Photo]]:
    """The names of the classes, and all photos in the order of the numbers in their names."""
    classes = sorted(path.name for path in source.iterdir() if path.is_dir() and not path.name.startswith("."))
    photos = []
    for label, name in enumerate(classes):
        for path in sorted((source / name).iterdir()):
            found = re.search(r"\d+", path.stem)
            if path.name.startswith("."):
                continue
            if found is None:
                sys.exit(f"{path}: its name has no number, so that nobody knows whose photo it is")
            photos.append(Photo(path, int(found[0]), label))
    return classes, sorted(photos, key=lambda photo: (photo.number, photo.label))


def runs_of(photos: Sequence[Photo]) -> list[list[Photo]]:
    """The photos in runs, in which the class rises and the number rises by at most `JUMP` from photo to photo."""
    runs: list[list[Photo]] = []
    for photo in photos:
        last = runs[-1][-1] if runs else None
        if last is None or photo.label <= last.label or photo.number - last.number > JUMP:
            runs.append([])
        runs[-1].append(photo)
    return runs


def pretrain_on(folder: Path, prompts: str, pipeline: Path, more: Sequence[str]) -> int:
    """Trains a pipeline on `folder/pretrain`, and returns the exit status of the command."""
    images = folder / "pretrain"
    typed = [
        *("dataset=imagefolder", f"dataset.root='{images}'", "dataset.image_size=32"),
        *prompt_keys(prompts, sorted(path.name for path in images.iterdir() if path.is_dir())),
        *(f"pretrain.output_dir='{pipeline}'", *more),
    ]
    print(shlex.join(["python", "experiments/pretrain.py", *typed]), flush=True)
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(ROOT / "experiments/pretrain.py"), *typed]
    return subprocess.run(command, env=environment, check=False).returncode


def prompt_keys(prompts: str, classes: Sequence[str]) -> list[str]:
    """The keys that give each class a prompt of its own, or all classes the same. A study of the pipeline takes them too."""
    if prompts == "class":
        return ['dataset.prompt_template="a photo of a hand sign for the digit {}"']
    words = ", ".join(f"{name}: hand" for name in classes)
    return ['dataset.prompt_template="a photo of a {}"', f"dataset.class_names={{{words}}}"]


if __name__ == "__main__":
    main()
