"""What a run leaves: a log, its resolved configuration, nothing where it was refused; a table over a sweep's jobs."""

import csv
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import compose
from omegaconf import OmegaConf

from distdiff.commands.launch import command
from distdiff.console.record import recording
from distdiff.tracking.sweep import SweptJob, SweptJobs, conclude

QUIET = ["logger=none", "trainer=cpu"]


@pytest.fixture
def start(monkeypatch, tmp_path: Path):
    """Runs `train` with a task of `tasks.py`, as its script does; returns the exit status."""

    def run(task: str, *overrides: str) -> int:
        given = [*QUIET, f"paths.output_dir={tmp_path}/out", *overrides]
        monkeypatch.setattr(sys, "argv", ["train.py", *given])
        try:
            command("train", f"tasks:{task}")()
        except SystemExit as ending:
            return ending.code
        return 0

    return run


def test_a_runs_log_says_what_the_console_says_without_its_progress_bars(start, capsys, tmp_path: Path) -> None:
    assert start("talk", "seed=7") == 0
    (run_dir,) = (tmp_path / "out/train").iterdir()
    log = (run_dir / "log.txt").read_text()
    said = capsys.readouterr().out
    assert "a bar" in said
    assert "a bar" not in log
    assert "2/2" not in log
    begun = ("train: ", "a bar")  # what begins is said before there is a log
    lines = [line.rstrip() for line in said.splitlines() if line.strip() and not line.startswith(begun)]
    assert [line.rstrip() for line in log.splitlines() if line.strip()] == lines
    assert lines[:2] == ["seed 7 [not markup]", "while the bar is there"]
    assert "cell" in log
    start("talk", f"hydra.run.dir={tmp_path}/given")
    assert (run_dir / "log.txt").read_text() == log  # the next run has its own
    assert "seed 0" in (tmp_path / "given/log.txt").read_text()


def test_a_warning_is_on_the_console_and_in_the_log(start, monkeypatch, capsys, tmp_path: Path) -> None:
    monkeypatch.setattr("distdiff.config.command.Command.warnings", lambda self, config: iter(["mind the seed"]))
    assert start("talk", "seed=7") == 0
    assert capsys.readouterr().err.splitlines() == ["distdiff: warning: mind the seed"]
    (run_dir,) = (tmp_path / "out/train").iterdir()
    assert (run_dir / "log.txt").read_text().splitlines()[0] == "distdiff: warning: mind the seed"


def test_a_run_directory_holds_the_resolved_configuration(tmp_path: Path) -> None:
    expected = compose("train", [*QUIET, f"paths.output_dir={tmp_path}/out", "seed=3"])
    with recording(expected, tmp_path):
        pass
    text = (tmp_path / "config.yaml").read_text()
    assert f"cache_dir: {tmp_path}/out/cache" in text
    assert OmegaConf.create(text) == OmegaConf.to_container(expected, resolve=True)


def test_a_refused_command_leaves_no_directory_of_its_own(start, tmp_path: Path) -> None:
    assert start("refuse") == 2
    assert list((tmp_path / "out/train").iterdir()) == []


def test_what_holds_anything_or_was_given_is_left_with_the_mistake_in_its_log(start, tmp_path: Path) -> None:
    assert start("refuse_late") == 2
    (run_dir,) = (tmp_path / "out/train").iterdir()
    assert (run_dir / "results.json").is_file()
    assert (run_dir / "log.txt").read_text() == "distdiff: the disk is full\n"
    given = tmp_path / "given"
    given.mkdir()
    assert start("refuse", f"hydra.run.dir={given}") == 2
    assert (given / "log.txt").read_text() == "before\ndistdiff: dataset.root=nowhere: no such folder\n"
    with pytest.raises(ValueError, match="ours"):
        start("crash", f"hydra.run.dir={tmp_path}/crashed")
    assert "ValueError: ours" in (tmp_path / "crashed/log.txt").read_text()


def test_a_sweep_ends_with_a_table_of_its_jobs(start, capsys, tmp_path: Path) -> None:
    assert start("score", "-m", "seed=1,2,5", "train.steps=3") == 1
    (sweep,) = (tmp_path / "out/train/multirun").iterdir()
    with open(sweep / "sweep.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row.pop("directory") for row in rows] == [str(sweep / str(number)) for number in range(3)]
    assert rows == [
        {"job": "0", "seed": "1", "accuracy": "0.1", "error": ""},
        {"job": "1", "seed": "2", "accuracy": "", "error": "seed=2: not today"},
        {"job": "2", "seed": "5", "accuracy": "0.5", "error": ""},
    ]
    said = capsys.readouterr().out
    table = [line.split() for line in said.splitlines()]
    assert ["job", "seed", "accuracy"] in table
    assert ["1", "2", "failed"] in table
    assert ["2", "5", "0.5"] in table
    assert "job 1 failed: seed=2: not today" in said
    assert said.rstrip().endswith(f"sweep    {sweep}/sweep.csv\npage     {sweep}/sweep.html")
    page = (sweep / "sweep.html").read_text()
    assert "Job 1 (seed=2): seed=2: not today" in page
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["train"]


def test_a_crash_of_ours_leaves_the_sweeps_table_too(start, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="ours"):
        start("score", "-m", "seed=3,4", f"hydra.sweep.dir={tmp_path}/sweep")
    with open(tmp_path / "sweep/sweep.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["seed"], row["accuracy"], row["error"]) for row in rows] == [
        ("3", "", "ValueError: ours"),
        ("4", "0.4", ""),
    ]
    assert "Job 0 (seed=3): ValueError: ours" in (tmp_path / "sweep/sweep.html").read_text()


def test_a_sweep_without_figures_or_failures_has_no_table(capsys, tmp_path: Path) -> None:
    job = SweptJob(0, str(tmp_path), str(tmp_path / "0"), ("seed=1",))
    conclude([replace(job, error=None)])
    assert not (tmp_path / "sweep.csv").exists()
    conclude([job])  # began, and no word of it since
    assert "job 0 failed: it did not end" in capsys.readouterr().out


def test_a_configuration_of_the_users_own_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("mine: precious\n")
    config = compose("train", QUIET)
    with recording(config, tmp_path):
        pass
    assert (tmp_path / "config.yaml").read_text() == "mine: precious\n"
    (tmp_path / "config.yaml").unlink()
    for seed in (1, 2):
        config.seed = seed
        with recording(config, tmp_path):
            pass
        assert OmegaConf.load(tmp_path / "config.yaml").seed == seed


def test_a_note_that_is_not_whole_hides_nothing(tmp_path: Path) -> None:
    notes = SweptJobs(tmp_path)
    job = SweptJob(0, str(tmp_path), str(tmp_path), ("seed=1",), error="stopped")
    notes.write(job)
    (tmp_path / ".jobs" / "1.json").write_text('{"number": 1')
    assert notes.read() == [replace(job, overrides=["seed=1"])]
