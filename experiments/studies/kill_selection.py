"""Kills an expansion with a selection by SIGKILL, while it makes candidates and while it selects, and checks the result.

    python experiments/studies/kill_selection.py [--kills 10] [--write experiments/results/kill_selection.md]

It runs `experiments/expand.py guidance=none selection=consistency` on the digits, as a user would, with one process, with
two ranks (`trainer=ddp_cpu trainer.devices=2`), and with two splits of an array job at the same time. The first half of
the kills come after some new candidates were written. The last two kills come right after the choice was recorded, while
images are moved. Those in between come within a few seconds after the first round of candidates is complete, while images
are chosen and further candidates are made. After the last kill the command runs to its end. The study exits with status 1
unless the kept files, their bytes and their metadata equal those of an uninterrupted run. It takes about ten minutes on
two cores.
"""

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

from distdiff.store.comparison import content_differences
from distdiff.store.reading import read_expanded

ROOT = Path(__file__).resolve().parents[2]
KEYS = (
    *("guidance=none", "selection=consistency", "selection.ratio=2", "selection.max_ratio=4"),
    *("generator.num_steps=8", "dataset.per_class=2", "expansion.factor=5", "expansion.batch_size=10"),
    *("encoder.guide.steps=60", "logger=none"),
)
ARRANGEMENTS = {
    "one process": [[]],
    "two ranks": [["trainer=ddp_cpu", "trainer.devices=2"]],
    "two splits": [[f"expansion.split={split}", "expansion.total_split=2"] for split in (0, 1)],
}
FIRST_ROUND = 200  # candidates: 2 for each copy, 5 copies of 20 images
PATIENCE = 300.0  # seconds for one run
IMPORTS, SOON = (
    6.5,
    1.5,
)  # seconds: the shortest start-up of a process; roughly the time that choosing takes


@dataclass
class Outcome:
    """What happened in one arrangement. `moments` says, for each kill, how many images existed and if any were chosen."""

    name: str
    moments: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    kept: int = 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=10, help="the number of kills in each arrangement")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--write", type=Path, help="the file for a Markdown page of the results")
    options = parser.parse_args()
    chance = random.Random(options.seed)
    with tempfile.TemporaryDirectory(prefix="distdiff-kills-") as folder:
        place = Path(folder)
        whole = place / "whole"
        finish(start(place, whole, ARRANGEMENTS["one process"]))
        outcomes = [killed(name, place, whole, options.kills, chance) for name in ARRANGEMENTS]
    text = page(outcomes, options.kills)
    print(text)
    if options.write:
        options.write.write_text(text, encoding="utf-8")
    sys.exit(any(outcome.problems for outcome in outcomes))


def killed(name: str, place: Path, whole: Path, kills: int, chance: random.Random) -> Outcome:
    """Runs one arrangement, kills it `kills` times, lets it finish, and compares its dataset with `whole`."""
    outcome, directory = Outcome(name), place / name.replace(" ", "-")
    for number in range(kills):
        running, begun = start(place, directory, ARRANGEMENTS[name]), time.monotonic()
        if 2 * number < kills:
            least = len(candidates(directory)) + chance.randint(1, FIRST_ROUND // kills)
            wait(running, lambda least=least: len(candidates(directory)) >= least)
        elif number < kills - 2:
            wait(running, lambda: len(candidates(directory)) >= FIRST_ROUND)
            end = max(time.monotonic(), begun + IMPORTS) + chance.uniform(0, SOON)
            wait(running, lambda end=end: noted(directory) or time.monotonic() > end)
        else:
            wait(running, lambda: noted(directory))
            time.sleep(chance.uniform(0, 0.1))
        alive = [process for process in running if process.poll() is None]
        for process in alive:
            os.killpg(process.pid, signal.SIGKILL)
        for process in running:
            process.wait()
        there = f"{len(candidates(directory))} there{', chosen' if noted(directory) else ''}"
        outcome.moments.append(there if alive else f"{there}, ended before")
    for _ in range(2):  # twice, because in the first run a split that ends early leaves the choice to the other split
        finish(start(place, directory, ARRANGEMENTS[name]))
    outcome.problems = content_differences(directory, whole)
    images = [read_expanded(path) for path in (directory, whole)]
    outcome.kept = len(images[0])
    own, expected = (
        {name: (p / name).read_bytes() for name in i.keys} for p, i in zip((directory, whole), images, strict=True)
    )
    outcome.problems += [f"{name} has other bytes" for name in own if own[name] != expected.get(name)]
    print(f"{name}: {'; '.join(outcome.moments)}: {outcome.problems or 'the same'}", flush=True)
    return outcome


def start(place: Path, directory: Path, processes: list[list[str]]) -> list[subprocess.Popen]:
    """Starts the command's processes, each in its own process group."""
    given = [*KEYS, f"paths.output_dir={place}/outputs", f"expansion.output_dir={directory}"]
    log = open(place / f"{directory.name}.log", "ab")  # noqa: SIM115 (the processes write to this file)
    return [
        subprocess.Popen(
            [sys.executable, str(ROOT / "experiments" / "expand.py"), *given, *own],
            env=os.environ | {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"},
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        for own in processes
    ]


def candidates(directory: Path) -> list[Path]:
    """The files of all images made so far, kept or not."""
    return [*directory.glob("[0-9]/*.png"), *directory.glob(".candidates/[0-9]/*.png")]


def noted(directory: Path) -> bool:
    return (directory / ".candidates" / "kept.json").is_file()


def wait(running: list[subprocess.Popen], happened) -> None:
    """Waits until `happened()` is true, all processes have ended, or `PATIENCE` is over."""
    deadline = time.monotonic() + PATIENCE
    while not happened() and any(process.poll() is None for process in running) and time.monotonic() < deadline:
        time.sleep(0.01)


def finish(running: list[subprocess.Popen]) -> None:
    for process in running:
        if process.wait(timeout=PATIENCE) != 0:
            raise SystemExit(f"{' '.join(process.args)} failed")


def page(outcomes: list[Outcome], kills: int) -> str:
    rows = "".join(
        f"| {o.name} | {o.kept} | {'; '.join(o.problems) or 'the same files, bytes and metadata'} | {'; '.join(o.moments)} |\n"
        for o in outcomes
    )
    return f"""# Killed while candidates are made and while images are selected

`python experiments/studies/kill_selection.py --kills {kills}` runs `expand.py guidance=none selection=consistency` on the digits.
The command keeps 5 copies of each of 20 images and may make up to 4 times as many candidates. In each arrangement it
was killed {kills} times by SIGKILL. Then it was left to finish, and its dataset was compared with the dataset of an
uninterrupted run in one process. The last column has one entry for each kill: how many images existed ("there"), and
"chosen" if the choice of the images to keep was already recorded.

| arrangement | kept | compared with the uninterrupted run | at each kill |
|---|---|---|---|
{rows}"""


if __name__ == "__main__":
    main()
