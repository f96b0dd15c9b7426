"""What a command says before its work: at once, without leaving a spinner, and without a word too many."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import ROOT
from omegaconf import OmegaConf
from rich.console import Console
from terminal import no_terminal, printed, screen, terminal
from waiting import wait_for

from distdiff.cli.task import say_begun
from distdiff.console import working
from distdiff.console.working import Working
from distdiff.ranks.arrangement import may_follow


@pytest.fixture(params=[terminal, no_terminal])
def console(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Console:
    console = request.param()
    monkeypatch.setattr(working, "console", console)
    return console


def test_a_status_shows_on_a_terminal_at_once_and_leaves_nothing(console: Console) -> None:
    message = Working("loading torch", patience=60.0)
    with message.shown():
        wait_for(lambda: "loading torch" in printed(console) or not console.is_terminal)
    console.print("then")
    assert screen(console) == ["then"]


def test_elsewhere_what_lasts_is_said_once_in_a_plain_line(monkeypatch: pytest.MonkeyPatch) -> None:
    console = no_terminal()
    monkeypatch.setattr(working, "console", console)
    message = Working("loading torch", patience=0.0)
    for _ in range(2):
        with message.shown():
            wait_for(lambda: printed(console))
    assert printed(console) == "loading torch\n"


def test_the_patience_counts_from_the_beginning_over_all_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    console = no_terminal()
    monkeypatch.setattr(working, "console", console)
    message = Working("checking", patience=60.0)
    with message.shown():
        pass
    assert printed(console) == ""
    message.due = time.monotonic()
    with message.shown():
        wait_for(lambda: printed(console))
    assert printed(console) == "checking\n"


def test_the_work_ends_the_message_and_a_message_that_has_ended_stays_so(console: Console) -> None:
    with Working("checking", patience=0.05).shown():
        Working.end()
        before = printed(console)
        time.sleep(0.1)
        console.print("begun")
        assert printed(console) == f"{before}begun\n"
    Working.end()
    assert screen(console) == ["begun"]


def test_ranks_that_do_not_lead_say_nothing(console: Console) -> None:
    console.quiet = True
    with Working("loading torch", patience=0.0).shown():
        time.sleep(0.02)
    assert printed(console) == ""


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, False),
        ({"SLURM_STEP_NUM_TASKS": "1", "SLURM_PROCID": "3"}, False),  # one process, which nobody leads
        ({"SLURM_STEP_NUM_TASKS": "4", "SLURM_PROCID": "0"}, False),
        ({"SLURM_STEP_NUM_TASKS": "4", "SLURM_PROCID": "3"}, True),
        ({"TORCHELASTIC_RUN_ID": "none", "RANK": "0"}, False),
        ({"TORCHELASTIC_RUN_ID": "none", "RANK": "1"}, True),
        ({"RANK": "1"}, False),  # left over in a shell
        ({"NODE_RANK": "0"}, False),
        ({"NODE_RANK": "1"}, True),
    ],
)
def test_a_process_that_another_leads_is_silent_before_its_job_is_known(environment: dict, expected: bool) -> None:
    assert may_follow(environment) is expected


FIRST_LINES = """
import sys
from distdiff.cli import command as launching, task
from distdiff.commands.launch import command
from distdiff.console.quiet import quiet_environment

launching.PATIENCE = 60.0
HEAVY = ("torch", "lightning", "diffusers", "transformers", "kornia")
task.run_job = lambda *_: print("task", [name for name in HEAVY if name in sys.modules], flush=True)
for name, *arguments in (line.split() for line in sys.argv[1:]):
    sys.argv[1:] = arguments
    command(name)()
"""


def test_each_command_says_what_it_begins_before_anything_heavy_is_imported(tmp_path) -> None:
    """In one process for all, which never gets to the work itself."""
    out = f"paths.output_dir={tmp_path}"
    commands = ("describe", "expand", "measure", "preview", "pretrain", "run", "train")
    lines = [*(f"{name} logger=none {out} hydra.run.dir={tmp_path}/{name}" for name in commands)]
    lines[commands.index("run")] += " study.methods=[original]"  # checked sooner than five rows
    lines += [f"export {out} hydra.run.dir={tmp_path}/export", f"train -m seed=1,2 logger=none {out}"]
    done = subprocess.run(
        [sys.executable, "-c", FIRST_LINES, *lines], cwd=ROOT, capture_output=True, text=True, env=os.environ
    )
    assert (done.returncode, done.stderr) == (0, "")
    said = done.stdout.splitlines()
    (sweep,) = (tmp_path / "train/multirun").iterdir()
    expected = []
    for name in commands:
        dataset = "font_digits" if name == "pretrain" else "digits"
        expected += [f"{name}: dataset {dataset}, directory {tmp_path}/{name}", "task []"]
    expected += [f"export: directory {tmp_path}/export", "task []"]
    expected += [f"train: multirun, directory {sweep}", "job 0: seed=1", "task []", "job 1: seed=2", "task []"]
    assert said == expected


def test_a_command_whose_configuration_takes_long_says_so_first_and_help_does_not(tmp_path) -> None:
    code = FIRST_LINES.replace("60.0", "0.0")
    lines = [f"train logger=none paths.output_dir={tmp_path} hydra.run.dir={tmp_path}/run"]
    for typed, first in ((lines[0], "train: checking the configuration"), ("train --help", "Trains one classifier")):
        done = subprocess.run([sys.executable, "-c", code, typed], cwd=ROOT, capture_output=True, text=True)
        assert done.stdout.startswith(first)
        assert done.stdout.count("checking the configuration") == (first != "Trains one classifier")


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"name": "digits", "root": "a/b"}, "run: dataset digits, directory out\n"),
        ({"name": None, "root": "/data/my pets"}, "run: dataset my pets, directory out\n"),
        ({"name": None, "hub_id": "owner/cats", "root": None}, "run: dataset cats, directory out\n"),
        ({"name": None, "root": None}, "run: directory out\n"),
    ],
)
def test_a_dataset_without_a_name_is_called_by_its_folder(keys: dict, said: str, capsys) -> None:
    say_begun("run", OmegaConf.create({"dataset": keys}), Path("out"))
    assert capsys.readouterr().out == said
