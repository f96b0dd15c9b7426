"""Does expansion help, and does guidance? Studies with ten draws of the training images and three training seeds each.

    python experiments/studies/yardstick.py digits_2
    python experiments/studies/yardstick.py digits_2 --seeds 4 --processes 1

A study takes hours on two cores. Each finished run is a line of `experiments/results/yardstick_<study>.csv`, and the same command
goes on after a stop. With all runs there, it writes `yardstick_<study>.md` and two figures beside the table. Every row is trained
with the number of steps that is best for it on validation images; the rows that end in `_best` also choose their network and
augmentation there. Accuracies are on test images.
"""

import argparse
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "experiments/results"
ROWS = "original,original_best,randaugment,randaugment_best,none,transform,transform_official,direct"
PROTOCOL = [
    f"study.methods=[{ROWS}]",
    *("study.split=test", "study.training_seeds=3", "study.tune_steps=[200,600]"),
    "study.best.classifiers=[small_cnn,small_resnet]",
]
STUDIES = {  # 200 images a row and data seed
    "digits_2": ["dataset.per_class=2", "expansion.factor=10"],
    "digits_5": ["dataset.per_class=5", "expansion.factor=4"],
    "digits_10": ["dataset.per_class=10", "expansion.factor=2"],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("study", choices=STUDIES)
    parser.add_argument("--seeds", type=int, default=10, help="draws of the training images")
    parser.add_argument("--processes", type=int, default=2, help="draws at a time, with a thread each")
    parser.add_argument("--out", type=Path, default=ROOT / "outputs/yardstick")
    options = parser.parse_args()
    table = RESULTS / f"yardstick_{options.study}.csv"
    given = [*STUDIES[options.study], *PROTOCOL, f"study.table='{table}'", f"paths.output_dir='{options.out}'"]

    def one(seed: int) -> None:
        run([*given, f"seed={seed}", "study.seeds=1"], options.out / f"{options.study}-{seed}.log")

    with ThreadPoolExecutor(options.processes) as pool:
        list(pool.map(one, range(options.seeds)))
    log = options.out / f"{options.study}.log"
    run([*given, f"study.seeds={options.seeds}"], log)
    write_page(options.study, log.read_text(encoding="utf-8"))


def run(overrides: list[str], log: Path) -> None:
    """Runs a study in a process of its own, with one thread. Its output goes to the file `log`."""
    log.parent.mkdir(parents=True, exist_ok=True)
    environment = os.environ | {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", "COLUMNS": "150"}
    command = [sys.executable, "experiments/run.py", *overrides, "logger=none"]
    with open(log, "w", encoding="utf-8") as file:
        subprocess.run(command, cwd=ROOT, env=environment, stdout=file, stderr=subprocess.STDOUT, check=True)


def write_page(study: str, said: str) -> None:
    """Writes what the study printed at its end, and the first figures of its report, to `experiments/results/`."""
    report = Path(re.search(r"^report +(.+)$", said, re.MULTILINE).group(1))
    page = (ROOT / report).read_text(encoding="utf-8")
    found = re.findall(r"<svg.*?</svg>", page, re.DOTALL)
    figures = {"accuracies": f"yardstick_{study}.svg", "differences": f"yardstick_{study}_differences.svg"}
    for name, svg in zip(figures.values(), found, strict=False):
        (RESULTS / name).write_text(svg + "\n", encoding="utf-8")
    keys = " ".join([*STUDIES[study], *PROTOCOL])
    text = f"""# {study.replace("_", ", ")} images a class: does expansion help, and does guidance?

`python experiments/studies/yardstick.py {study}`; every run is in [this table](yardstick_{study}.csv). It is `experiments/run.py`
with these keys:

```
{keys}
```

```
{chr(10).join(conclusions(said))}
```

{chr(10).join(f"![{words}]({name})" for words, name in figures.items())}
"""
    (RESULTS / f"yardstick_{study}.md").write_text(text, encoding="utf-8")


def conclusions(said: str) -> Iterator[str]:
    """The lines of a study's output from the table of accuracies on, without the places of its files."""
    lines = said.splitlines()
    (start,) = (number for number, line in enumerate(lines) if ": accuracy on " in line)
    for line in lines[start:]:
        if not re.match(r"(report|results) +\S+$", line):
            yield line.rstrip()


if __name__ == "__main__":
    main()
