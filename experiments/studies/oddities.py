"""Describes and expands a folder of odd files such as users have, and shows what the commands print and make.

    python experiments/studies/oddities.py > experiments/results/oddities.md

The script takes a few minutes. It prints Markdown: the contents of the folder, the commands' whole output, what became
of each odd file, and the output for folders that cannot be used. The exit status is 1 if an image was left out without a
message or a file was written elsewhere.
"""

import contextlib
import io
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import datasets
import numpy as np
import pyarrow.parquet
from odd_images import write_odd_images
from PIL import Image

from distdiff.data.sources import imagefolder
from distdiff.wording import printable

ROOT = Path(__file__).resolve().parents[2]
SMALL = [
    "dataset.validation_fraction=0",
    "dataset.test_fraction=0.01",
    "dataset.image_size=32",
    "generator.num_steps=6",
    "encoder.guide.steps=20",
    "expansion.factor=2",
    "guidance=direct",
    "logger=none",
]
ODD_CLASS, ESCAPING, MARKUP = "Odd ones", "a\\..\\..\\evil", "<b>bold[red] & café 猫🐱"
ODD_NAMES = (
    "a%2Fb.png",
    "q?*:|.png",
    "new\nline.png",
    "smörgås 猫🐱.png",
    "[1] $(x) 'y' \"z\".png",
    "-rf.png",
    " .png",
)


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="distdiff-oddities-") as temporary:
        place = Path(temporary) / "place"
        pictures = place / "pictures"
        odd = write_folder(pictures)
        before = tree(place)
        print(
            "# What a folder may hold\n\nOutput of `python experiments/studies/oddities.py`. "
            "The folder to describe and expand holds these files and empty folders:\n"
        )
        print(f"```\n{listing(pictures)}\n```\n\n## Described\n")
        looked = say(place, "describe.py", pictures)
        print("\n## Expanded\n")
        expanded = Path(temporary) / "expanded"
        made = say(place, "expand.py", pictures, f"expansion.output_dir={expanded}", *SMALL)
        fates = what_became(expanded)
        print("\n| file of the class `Odd ones` | what became of it |\n|---|---|")
        tested = held_out_for_testing(pictures)
        for name in map(printable, sorted(odd)):
            other = "held out for testing" if name in tested else "no image of the dataset"
            print(f"| `{name}` | {fates.get((ODD_CLASS, name), other)} |")
        problems = [
            f"exit status of {what}: {status}" for what, status in (("describe", looked), ("expand", made)) if status
        ]
        problems += check(expanded, fates, place, before)
        print("\n## Folders that cannot be used, or not by every command\n")
        for title, folder, command in unusable(place):
            print(f"{title}:\n")
            overrides = SMALL if command == "expand.py" else ()
            problems += [f"{title}: a traceback"] if say(place, command, folder, *overrides) not in (0, 2) else []
        print(
            "\n"
            + (
                "\n".join(f"PROBLEM: {problem}" for problem in problems)
                or "The commands reported every image that they left out."
            )
        )
    sys.exit(1 if problems else 0)


def write_folder(top: Path) -> list[str]:
    """Writes all files into `top`; returns the names of those in the class folder `Odd ones`."""
    folder = top / ODD_CLASS
    folder.mkdir(parents=True)
    odd = write_odd_images(folder)
    for number, name in enumerate(ODD_NAMES):
        picture(number).save(folder / name)
    picture(20).save(folder / "CAPITALS.JPEG")
    picture(21).save(folder / "wrong extension.jpg", format="PNG")
    picture(22).save(folder / "one stem.png")
    picture(23).save(folder / "one stem.jpg", quality=95)
    picture(24).save(folder / "twin.png")
    shutil.copy(folder / "twin.png", folder / "twin again.png")
    picture(25, side=1).save(folder / "one pixel.png")
    picture(26).resize((9000, 6000)).save(folder / "54 megapixels.jpg")
    (folder / "deeper" / "still").mkdir(parents=True)
    picture(27).save(folder / "deeper/still/below.png")
    (folder / ".hidden.png").write_bytes(b"")
    (folder / "Thumbs.db").write_bytes(b"x")
    (folder / "notes.txt").write_text("no image")
    (folder / "link.png").symlink_to(folder / "twin.png")
    (folder / "broken link.png").symlink_to(folder / "nowhere.png")
    (folder / "loop").symlink_to(folder)
    for number, name in enumerate(("train", "test_set", ESCAPING, MARKUP)):
        for index, stem in enumerate(("test_1", "x_val_2", "train", "3")):
            (top / name).mkdir(exist_ok=True)
            picture(100 + 10 * number + index).save(top / name / f"{stem}.{'jpg' if index == 0 else 'png'}")
    shutil.copy(folder / "twin.png", top / "train" / "odd twin.png")  # the same picture in two classes
    (top / "empty class").mkdir()
    for name in (".git", "..\\evil"):
        (top / name).mkdir()
    picture(91).save(top / "..\\evil" / "hidden with its folder.png")
    picture(90).save(top / "no class.png")
    lower = ["CAPITALS.JPEG", "wrong extension.jpg", "one stem.png", "one stem.jpg", "twin.png", "twin again.png"]
    odd += [*ODD_NAMES, *lower, "one pixel.png", "54 megapixels.jpg", "deeper/still/below.png", ".hidden.png"]
    return [*odd, "Thumbs.db", "notes.txt", "link.png", "broken link.png", "loop"]


def unusable(place: Path) -> list[tuple[str, Path, str]]:
    """Makes the folders that cannot be used; returns (title, folder, script to run on it) of each case."""
    single, empty, damaged = (place / name for name in ("one class", "no images", "a class of damaged images"))
    for number in range(6):
        (single / "only").mkdir(parents=True, exist_ok=True)
        picture(200 + number).save(single / "only" / f"{number}.png")
        for name in ("good", "bad"):
            (damaged / name).mkdir(parents=True, exist_ok=True)
        picture(300 + number).save(damaged / "good" / f"{number}.png")
        (damaged / "bad" / f"{number}.png").write_bytes(b"no image")
    (empty / "a").mkdir(parents=True)
    return [
        ("A folder with only one class, described", single, "describe.py"),
        ("A folder with only one class, expanded", single, "expand.py"),
        ("A folder without images", empty, "describe.py"),
        ("A folder with a class of which no image can be read", damaged, "expand.py"),
        ("A folder that does not exist", place / "elsewhere", "describe.py"),
        ("A class folder, given instead of the folder that contains it", single / "only", "describe.py"),
    ]


def picture(seed: int, side: int = 64) -> Image.Image:
    """Smooth blotches of colour, different for each seed."""
    coarse = np.random.default_rng(seed).integers(64, 192, (6, 6, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC)


def say(place: Path, script: str, folder: Path, *overrides: str) -> int:
    """Runs a command, prints it with its whole output, and returns its exit status."""
    given = ["dataset=imagefolder", f"dataset.root={folder}", *overrides]
    paths = [f"paths.output_dir={place.parent}/outputs", f"paths.cache_dir={place.parent}/cache"]
    command = [sys.executable, f"experiments/{script}", *given, *paths, *(() if overrides else ("logger=none",))]
    run = subprocess.run(
        command, cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    said = run.stdout.decode(errors="replace").replace(str(place.parent), "<place>").strip()
    words = " ".join(given).replace(str(place.parent), "<place>")
    print(f"```\n$ python experiments/{script} {words}\n{said}\n$ echo $?\n{run.returncode}\n```\n")
    return run.returncode


def held_out_for_testing(pictures: Path) -> set[str]:
    """The names of the odd files that are not expanded because they are in the test split."""
    with contextlib.redirect_stdout(io.StringIO()):
        splits = imagefolder.load(
            root=str(pictures),
            archive_encoding=None,
            label_column=None,
            train_split="train",
            validation_split="validation",
            test_split="test",
            validation_fraction=0,
            test_fraction=0.01,
            name="",
            split_seed=0,
            cache_dir="",
        )
    names = splits.test.class_names
    return {key for key, label in zip(splits.test.keys, splits.test.labels, strict=True) if names[label] == ODD_CLASS}


def what_became(expanded: Path) -> dict[tuple[str, str], str]:
    """(class, source) -> the name of an image that was made from it, or the reason why none was."""
    rows = pyarrow.parquet.read_table(expanded / "metadata.parquet").to_pylist()
    lost = pyarrow.parquet.read_table(expanded / "failures.parquet").to_pylist()
    fates = {(row["class_name"], row["source"]): f"left out: {row['reason']}" for row in lost}
    for row in rows:
        fates[row["class_name"], row["source"]] = f"expanded: `{row['file_name'].replace('`', '')}`"
    return fates


def check(expanded: Path, fates: dict[tuple[str, str], str], place: Path, before: set[str]) -> list[str]:
    """Checks the expanded dataset and the folders around it; returns the problems found."""
    rows = pyarrow.parquet.read_table(expanded / "metadata.parquet").num_rows
    read = datasets.load_dataset(
        "imagefolder", data_dir=str(expanded), split="train", cache_dir=str(place.parent / "hf")
    )
    print(
        f"\n`datasets.load_dataset` reads {len(read):,} of {rows:,} images, with the classes {read.features['label'].names}."
    )
    problems = [] if len(read) == rows else ["datasets does not read all images"]
    if tree(place) != before:
        problems.append(f"files appeared beside the pictures: {sorted(tree(place) ^ before)}")
    known = {expanded, place, *(place.parent / name for name in ("outputs", "cache", "hf"))}
    problems += [f"written elsewhere: {path}" for path in set(place.parent.iterdir()) - known]
    return problems + ([] if any("%5C" in fate for fate in fates.values()) else ["the escaping class is not there"])


def tree(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*")}


def listing(folder: Path) -> str:
    names = [f"{path.relative_to(folder).as_posix()!r}" for path in sorted(folder.rglob("*")) if not path.is_dir()]
    return "\n".join(
        [*names, *(f"{path.name!r} (empty)" for path in folder.iterdir() if path.is_dir() and not any(path.iterdir()))]
    )


if __name__ == "__main__":
    main()
