"""Long studies, made draw by draw in processes of their own, and what a page shows of their end.

Each finished run is a line of the study's table, so that the same call goes on after a stop.
"""

import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "experiments/results"
VALIDATION, FIRST_SEED = "study.split=validation", 1000  # what is chosen is chosen with draws that no test figure has


def study(keys: Sequence[str], table: Path, seeds: range, out: Path, name: str, processes: int) -> str:
    """Makes the study draw by draw, `processes` draws at a time, and then all of it; returns what the last one printed.

    Expansions are made below `out`, where each process writes its output to a file that begins with `name`.
    """
    given = [*keys, f"study.table='{table}'", f"paths.output_dir='{out}'"]

    def one(seed: int) -> None:
        run([*given, f"seed={seed}", "study.seeds=1"], out / f"{name}-{seed}.log")

    with ThreadPoolExecutor(processes) as pool:
        list(pool.map(one, seeds))
    log = out / f"{name}.log"
    run([*given, f"seed={seeds.start}", f"study.seeds={len(seeds)}"], log)
    return log.read_text(encoding="utf-8")


def run(overrides: Sequence[str], log: Path, script: str = "run") -> None:
    """Runs a study, or another script of experiments/, in a process of its own, with one thread. Its output goes to `log`."""
    log.parent.mkdir(parents=True, exist_ok=True)
    environment = os.environ | {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
    command = [sys.executable, f"experiments/{script}.py", *overrides, "logger=none"]
    with open(log, "w", encoding="utf-8") as file:
        subprocess.run(command, cwd=ROOT, env=environment, stdout=file, stderr=subprocess.STDOUT, check=True)


def written(rows: Mapping[str, Sequence[str]]) -> str:
    """Rows by their overrides as the value of `study.rows`."""
    return "{" + ", ".join(f"{row}: [{', '.join(keys)}]" for row, keys in rows.items()) + "}"


def place_of(said: str, what: str) -> Path:
    """Where a study wrote its `report` or its `results`, as it printed."""
    return ROOT / re.search(rf"^{what} +(.+)$", said, re.MULTILINE).group(1)


def save_figures(said: str, stem: Path, *figures: str) -> Iterator[str]:
    """Saves figures of the study's report, each chosen by words in its title, to files that begin with `stem`.

    Yields the lines that show them in a page in the same folder.
    """
    svgs = re.findall(r"<svg.*?</svg>", place_of(said, "report").read_text(encoding="utf-8"), re.DOTALL)
    titles = [re.search("<title[^>]*>(.*?)</title>", svg, re.DOTALL).group(1) for svg in svgs]
    for number, words in enumerate(figures, 1):
        for title, svg in zip(titles, svgs, strict=True):
            if words in title:
                path = stem.with_name(f"{stem.name}_{number}.svg")
                path.write_text(svg + "\n", encoding="utf-8")
                yield f"![{title}]({path.name})"


def conclusions(said: str) -> Iterator[str]:
    """The lines of a study's output from the table of accuracies on, without the places of its files."""
    lines = said.splitlines()
    (start,) = (number for number, line in enumerate(lines) if ": accuracy on " in line)
    for line in lines[start:]:
        if not re.match(r"(report|results) +\S+$", line):
            yield line.rstrip()
