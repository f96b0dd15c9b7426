"""Tasks that stand in for a command's own: what is around them is tested."""

import json
from pathlib import Path

from omegaconf import DictConfig
from rich.table import Table

from distdiff.console.output import console
from distdiff.console.stages import display
from distdiff.errors import UserError


def talk(config: DictConfig, run_dir: Path) -> None:
    """Says a line, shows a bar, prints a table, and leaves nothing."""
    console.print(f"seed {config.seed} [not markup]")
    with display.stage("a bar", 2, "steps") as bar:
        bar.advance()
        console.print("while the bar is there")
        bar.advance()
    table = Table("column")
    table.add_row("cell")
    console.print(table)


def refuse(config: DictConfig, run_dir: Path) -> None:
    console.print("before")
    raise UserError("dataset.root=nowhere: no such folder")


def refuse_late(config: DictConfig, run_dir: Path) -> None:
    (run_dir / "results.json").write_text("{}")
    raise UserError("the disk is full")


def crash(config: DictConfig, run_dir: Path) -> None:
    raise ValueError("ours\nsecond line")


def score(config: DictConfig, run_dir: Path) -> None:
    """An accuracy of `seed` tenths; seed 2 is refused, seed 3 crashes."""
    if config.seed == 2:
        raise UserError("seed=2: not today")
    if config.seed == 3:
        raise ValueError("ours\nsecond line")
    results = {"dataset": "d", "accuracy": config.seed / 10, "seed": config.seed, "classes": [{"accuracy": 1}]}
    (run_dir / "results.json").write_text(json.dumps(results))


def echo_rate(config: DictConfig, run_dir: Path) -> float:
    """Returns the learning rate, as if it were an accuracy, and leaves a result."""
    (run_dir / "results.json").write_text(json.dumps({"accuracy": config.optimizer.learning_rate}))
    return config.optimizer.learning_rate


def seed_as_figure(config: DictConfig, run_dir: Path) -> float:
    (run_dir / "results.json").write_text(json.dumps({"accuracy": 0.5}))
    return float(config.seed)


def say_where(config: DictConfig, run_dir: Path) -> None:
    """Says where the job runs and where its data are, as one line of JSON."""
    told = {
        "root": config.dataset.root,
        "data_dir": config.paths.data_dir,
        "cwd": str(Path.cwd()),
        "run_dir": str(run_dir),
    }
    print(json.dumps(told))
