"""Kills expansions with SIGKILL at random moments, resumes them, and compares each with an uninterrupted one.

    python experiments/studies/kill_and_resume.py --runs 20

Every run expands 20 real digits with the embedded generator, every other run with two ranks. Few steps are used, so
that the kills spread over loading, training the guide, sampling, writing and finishing. Each attempt but the last is
killed between 0 and `--longest` seconds after it began: either all of its processes or, with two ranks, just one rank.
Every final dataset must have the files, metadata and pixels of the uninterrupted one and no other file. No image may be
rewritten once it exists, and no process may outlive its command. The exit status is 1 if any run fails this.
"""

import argparse
import contextlib
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from distdiff.store.comparison import content_differences

ROOT = Path(__file__).resolve().parents[2]
KILLS_A_RUN = 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--copies", type=int, default=4)
    parser.add_argument(
        "--longest", type=float, default=25.0, help="an attempt is killed after at most this many seconds"
    )
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    chance = random.Random(options.seed)
    with tempfile.TemporaryDirectory(prefix="distdiff-kill-") as folder:
        place = Path(folder)
        expand(place / "whole", place / "cache", options.copies).wait()
        reached, failures = 0, 0
        for run in range(options.runs):
            target, rewritten, ranks = place / f"run{run}", [], 1 + run % 2
            for _ in range(KILLS_A_RUN):
                before = times(target)
                process = expand(target, place / f"cache{run}", options.copies, ranks)
                stop = time.monotonic() + chance.uniform(0, options.longest)
                while process.poll() is None and time.monotonic() < stop:
                    time.sleep(0.01)
                members = [int(number) for number in children(process.pid)]
                victims = [chance.choice(members)] if members and chance.random() < 0.5 else [process.pid, *members]
                for victim in victims:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(victim, signal.SIGKILL)
                process.wait()
                rewritten += changed(before, times(target))
            reached += len(times(target)) > 0
            before = times(target)
            status = expand(target, place / f"cache{run}", options.copies, ranks).wait()
            rewritten += changed(before, times(target))
            problems = [
                *content_differences(place / "whole", target),
                *(f"written again: {name}" for name in rewritten),
            ]
            problems += [f"exit status {status}"] if status else []
            failures += bool(problems)
            print(f"run {run}, {ranks} ranks: {'; '.join(problems) or 'the same'}", flush=True)
    print(f"{options.runs - failures} of {options.runs} runs, each killed {KILLS_A_RUN} times, ended the same")
    print(f"({reached} of them had images before their last attempt)")
    sys.exit(1 if failures else 0)


def children(process: int) -> list[str]:
    """The process ids of the ranks that the command `process` has started."""
    with contextlib.suppress(FileNotFoundError):
        return Path(f"/proc/{process}/task/{process}/children").read_text().split()
    return []


def expand(target: Path, cache: Path, copies: int, ranks: int = 1) -> subprocess.Popen:
    command = [sys.executable, "experiments/expand.py", f"expansion.output_dir={target}", f"expansion.factor={copies}"]
    command += [
        "guidance=direct",
        "expansion.batch_size=4",
        "generator.num_steps=10",
        "encoder.guide.steps=20",
        "logger=none",
    ]
    command += [f"paths.output_dir={target.parent}/outputs", f"paths.cache_dir={cache}"]
    command += ["trainer=ddp_cpu", f"trainer.devices={ranks}"] if ranks > 1 else []
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    quiet = subprocess.DEVNULL
    return subprocess.Popen(command, cwd=ROOT, env=environment, start_new_session=True, stdout=quiet, stderr=quiet)


def times(folder: Path) -> dict[str, int]:
    """File name -> modification time in nanoseconds, for each image in `folder`."""
    return {path.relative_to(folder).as_posix(): path.stat().st_mtime_ns for path in folder.glob("[!.]*/*.png")}


def changed(before: dict[str, int], after: dict[str, int]) -> list[str]:
    return [name for name, moment in before.items() if after.get(name) != moment]


if __name__ == "__main__":
    main()
