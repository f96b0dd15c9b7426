"""Kills the processes of array jobs with SIGKILL while they write a directory, in every format, and resumes to the end.

    python experiments/studies/kill_formats.py --runs 4

A stand-in for the model makes the images, so that hundreds of kills take only minutes and hit the writing, closing and
merging. Each attempt has one, two or three processes, which are killed at random moments after new images were made.
After every attempt, no finished image may be missing or have been made again. At the end, all images must be readable
and the same in all formats, `datasets` must find each image once, and no other file may be left. Otherwise the script
ends with an error.
"""

import argparse
import os
import random
import signal
import sys
import tempfile
import time
import traceback
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"  # the processes are forked, and a fork does not copy threads

import datasets
import numpy as np
import torch

from distdiff.commands.configuration import configure
from distdiff.data.images import LabelledImages
from distdiff.expansion.job import ExpansionJob
from distdiff.methods.synthesis import Synthesized, Synthesizer
from distdiff.store.directory import ExpandedDirectory
from distdiff.store.reading import read_expanded

FORMATS = ("imagefolder", "webdataset", "parquet")
SOURCES, COPIES, BATCH, SHARD, PAUSE = 60, 8, 3, 7, 0.005
ATTEMPTS = 10  # the last one is not killed


class StandIn(Synthesizer):
    """Makes noise images from the seeds of the items and writes the names of these images to `log`."""

    def __init__(self, log: Path) -> None:
        super().__init__()
        self.log = log

    def forward(self, items) -> Synthesized:
        with open(self.log, "a") as file:
            file.write("".join(f"{item.file_name}\n" for item in items))
        time.sleep(PAUSE)
        images = [np.random.default_rng(item.seed).random((3, 16, 16), np.float32) for item in items]
        return Synthesized(torch.from_numpy(np.stack(images)), {"energy_after": [0.5] * len(items)})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=4, help="the number of runs in each format")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    datasets.disable_progress_bars()
    chance, whole, kills, early = random.Random(options.seed), None, 0, 0
    with tempfile.TemporaryDirectory(prefix="distdiff-kill-") as place:
        for run in range(options.runs):
            for storage in FORMATS:
                folder = Path(place) / f"{storage}-{run}"
                killed, before = until_done(storage, folder, chance)
                images = check(storage, folder)
                whole = whole or images
                assert images == whole, f"{folder} differs"
                kills, early = kills + killed, early + before
                print(
                    f"{storage}: the same after {killed} kills, {before} images made before the last attempt",
                    flush=True,
                )
    print(f"{options.runs * len(FORMATS)} datasets the same after {kills} kills; of {early} images that were there,")
    print("none was lost or made again")


def until_done(storage: str, folder: Path, chance: random.Random) -> tuple[int, int]:
    """Runs all attempts; returns the number of killed processes and of images that existed before the last attempt."""
    log, finished, kills, noted = folder.with_suffix(".log"), {}, 0, 0
    log.touch()
    for attempt in range(ATTEMPTS):
        last = attempt == ATTEMPTS - 1
        shares = 1 if last else chance.choice((1, 2, 2, 3))
        early, processes = len(finished), [fork(storage, folder, split, shares, log) for split in range(shares)]
        if not last:
            wait_for_more(log, noted)
            for process in chance.sample(processes, len(processes)):
                time.sleep(chance.uniform(0, 0.25))
                os.kill(process, signal.SIGKILL)  # ended ones are not yet waited for, so their ids are not reused
        codes = [os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) for process in processes]
        kills += codes.count(-signal.SIGKILL)
        made = log.read_text().splitlines()
        assert not finished.keys() & set(made[noted:]), "a finished image was made again"
        noted = len(made)
        assert set(codes) <= {0, -signal.SIGKILL}, f"exit statuses {codes}"
        directory = ExpandedDirectory(folder)
        now = directory.rows() if directory.manifest() else {}
        assert finished.keys() <= now.keys(), "a finished image is gone"
        finished = now
    return kills, early


def fork(storage: str, folder: Path, split: int, shares: int, log: Path) -> int:
    process = os.fork()
    if process == 0:
        try:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            job(storage, folder, split, shares, log).run("expand")
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
    return process


def job(storage: str, folder: Path, split: int, shares: int, log: Path) -> ExpansionJob:
    given = [f"expansion.format={storage}", f"expansion.factor={COPIES}", f"expansion.batch_size={BATCH}"]
    given += [f"expansion.shard_size={SHARD}", "logger=none", "generator.resolution=16"]
    given += [f"expansion.total_split={shares}", f"expansion.split={split}"] if shares > 1 else []
    labels = np.arange(SOURCES) % 3
    names = tuple(f"image {i}.v1.png" for i in range(SOURCES))
    sources = LabelledImages("any", ("a", "train", "b.c"), labels, names, read=None, indices=labels)
    made = ExpansionJob("none", 0, sources, {"seed": 0}, lambda title: StandIn(log), folder, configure("expand", given))
    made.claim()
    return made


def wait_for_more(log: Path, noted: int, patience: float = 20.0) -> None:
    until = time.monotonic() + patience
    while time.monotonic() < until and log.read_text().count("\n") <= noted:
        time.sleep(0.005)


def check(storage: str, folder: Path) -> dict[str, bytes]:
    """File name -> pixels; raises `AssertionError` if images are missing, files left over, or `datasets` reads others."""
    images = read_expanded(folder)
    pixels = {key: images.image(position).tobytes() for position, key in enumerate(images.keys)}
    assert len(pixels) == len(images) == SOURCES * COPIES, "images are missing"
    left = [path.name for path in folder.glob(".*")]
    assert not left, f"left over: {left}"
    if storage == "imagefolder":
        loaded = datasets.load_dataset("imagefolder", data_dir=str(folder), split="train")
        sources = [(row["class_name"], row["source"], row["copy"]) for row in loaded.remove_columns("image")]
        assert len(set(sources)) == len(sources) == len(pixels), "datasets reads something else"
    else:
        loaded = datasets.load_dataset(str(folder), split="train")
        names = [(row["json"] if storage == "webdataset" else row)["file_name"] for row in loaded]
        assert sorted(names) == sorted(pixels), "datasets reads something else"
    return pixels


if __name__ == "__main__":
    sys.exit(main())
