"""Hydra's own flags do, at our commands, what Hydra says that they do."""

import io
import os
import signal
import sys
from pathlib import Path

import pytest
from conftest import compose
from omegaconf import OmegaConf

from distdiff.commands.launch import command
from distdiff.config.arguments import read_flags


@pytest.fixture
def train(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path):
    """Runs `train` with a task that prints its seed; returns the exit status and what was printed."""

    def run(*arguments: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["train.py", "logger=none", f"paths.output_dir={tmp_path}/out", *arguments])
        status = 0
        try:
            command("train", "tasks:talk")()
        except SystemExit as ending:
            status = ending.code
        return status or 0, capsys.readouterr().out

    return run


def test_flags_are_told_from_overrides_wherever_they_stand() -> None:
    flags = read_flags(["a=1", "-m", "--cfg", "job", "--resolve", "b=2", "--config-dir=x", "-p", "dataset"])
    assert (flags.overrides, flags.multirun, flags.cfg, flags.resolve) == (["a=1", "b=2"], True, "job", True)
    assert (flags.config_dir, flags.package, flags.help) == ("x", "dataset", False)


def test_cfg_prints_the_job_and_runs_nothing(train, tmp_path: Path) -> None:
    # Null steps and a null split stand for values that depend on other keys, which Hydra leaves open.
    typed = ["seed=3", "train.split=test", "train.steps=200"]
    status, printed = train("--cfg", "job", *typed)
    assert status == 0
    assert OmegaConf.create(printed) == compose("train", ["logger=none", f"paths.output_dir={tmp_path}/out", *typed])
    assert not (tmp_path / "out").exists()


@pytest.mark.skipif(not hasattr(signal, "SIGPIPE"), reason="this system has no SIGPIPE")
def test_a_process_that_prints_and_goes_on_is_not_ended_later_by_a_closed_pipe(train) -> None:
    before = signal.getsignal(signal.SIGPIPE)
    for typed in (["--cfg", "job"], ["--help"], ["--info", "defaults"]):
        train(*typed)
        assert signal.getsignal(signal.SIGPIPE) is before
    with pytest.raises(BrokenPipeError):
        closed_pipe().write(b"more")


def closed_pipe() -> io.FileIO:
    reading, writing = os.pipe()
    os.close(reading)
    return open(writing, "wb", buffering=0)


def test_resolve_puts_values_in_place_of_references(train, tmp_path: Path) -> None:
    reference, resolved = (train("--cfg", "job", "-p", "paths", *more)[1] for more in ([], ["--resolve"]))
    assert "${" in reference
    assert f"cache_dir: {tmp_path}/out/cache" in resolved
    assert "${" not in resolved


def test_package_prints_one_group(train) -> None:
    _, printed = train("--cfg", "job", "--package", "dataset", "dataset.per_class=7")
    keys = OmegaConf.create("\n".join(line for line in printed.splitlines() if not line.startswith("#")))
    found = keys.get("dataset", keys)
    assert found.per_class == 7
    assert "seed" not in keys


def test_config_dir_adds_a_folder_of_options(train, tmp_path: Path) -> None:
    folder = tmp_path / "mine" / "dataset"
    folder.mkdir(parents=True)
    (folder / "mine.yaml").write_text("defaults: [digits]\nper_class: 9\n")
    status, printed = train("--config-dir", f"{tmp_path}/mine", "dataset=mine", "--cfg", "job", "-p", "dataset")
    assert status == 0
    assert "per_class: 9" in printed
    status, _ = train("dataset=mine", "--cfg", "job", "-p", "dataset")
    assert status == 2


@pytest.mark.parametrize("flag", ["-m", "--multirun"])
def test_multirun_runs_a_job_for_each_value(flag: str, train, tmp_path: Path) -> None:
    status, printed = train("seed=1,2", flag)
    assert status == 0
    assert [line.split()[1] for line in printed.splitlines() if line.startswith("seed ")] == ["1", "2"]
    assert (tmp_path / "out/train/multirun").is_dir()
    status, printed = train("seed=1,2")
    assert (status, printed) == (2, "")


def test_cfg_hydra_can_be_resolved(train, tmp_path: Path) -> None:
    status, printed = train("--cfg", "hydra", "--resolve", "-p", "hydra.run")
    assert status == 0
    assert f"dir: {tmp_path}/out/train/" in printed
    assert not (tmp_path / "out").exists()
