"""Hydra's sweeps do what Hydra's documentation says: globs, sweepers that choose as they go, returned figures."""

import csv
import json
import math
import os
import re
import sys
from pathlib import Path

import pytest
import torch
import yaml
from conftest import compose
from hydra.core.hydra_config import HydraConfig
from hydra.errors import ConfigCompositionException
from hydra.types import RunMode

import distdiff
from distdiff.cli import pace
from distdiff.cli.endings import Endings
from distdiff.cli.task import JOBLIB, share_gpus
from distdiff.commands.configuration import configure_jobs
from distdiff.commands.launch import command
from distdiff.errors import UserError
from distdiff.option_files.search_path import OURS

OPTUNA = ["-m", "hydra/sweeper=optuna", "hydra.sweeper.direction=maximize", "hydra.sweeper.n_jobs=1"]
GRID = [*OPTUNA, "hydra/sweeper/sampler=grid"]
SEARCH = ["hparams_search=guidance_strength"]


@pytest.fixture
def start(monkeypatch, capsys, tmp_path: Path):
    """Runs a command with a task of `tasks.py`; returns the exit status and what was printed to both streams."""

    def run(name: str, task: str, *arguments: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", [name, "logger=none", f"paths.output_dir={tmp_path}/out", *arguments])
        status = 0
        try:
            command(name, f"tasks:{task}")()
        except SystemExit as ending:
            status = ending.code
        printed = capsys.readouterr()
        return status or 0, printed.out + printed.err

    return run


def rows_of(sweep: Path) -> list[dict[str, str]]:
    with open(sweep / "sweep.csv", newline="") as file:
        return list(csv.DictReader(file))


def test_a_glob_runs_a_job_for_each_option(start, tmp_path: Path) -> None:
    status, said = start("expand", "talk", "-m", "guidance=glob(*,exclude=[t*,f*,m*,c*])", "guidance.rho=0.5")
    assert status == 0, said
    jobs = [line.split()[2] for line in said.splitlines() if line.startswith("job ")]
    assert jobs == [f"guidance={name}" for name in OURS.options("guidance") if name[0] not in "tfmc"]
    assert len(jobs) > 1
    (sweep,) = (tmp_path / "out/expand/multirun").iterdir()
    assert {path.name for path in sweep.iterdir() if path.name.isdigit()} == {str(n) for n in range(len(jobs))}


def test_swept_values_may_come_from_the_sweepers_own_keys(start, tmp_path: Path) -> None:
    folder = tmp_path / "mine/hparams_search"
    folder.mkdir(parents=True)
    (folder / "mine.yaml").write_text(
        "# @package _global_\nhydra:\n  mode: MULTIRUN\n  sweeper:\n    params:\n      guidance.rho: 0.1,1\n"
    )
    status, said = start("run", "talk", f"--config-dir={tmp_path}/mine", "hparams_search=mine", "seed=1,2", "-m")
    assert status == 0, said
    jobs = [line.split(" ", 2)[2] for line in said.splitlines() if line.startswith("job ")]
    assert jobs == [f"guidance.rho={rho} seed={seed}" for rho in ("0.1", "1") for seed in (1, 2)]


@pytest.mark.parametrize(
    ("sweep", "total"),
    [(["-m", "seed=1,2,3"], 3), ([*OPTUNA, "hydra.sweeper.n_trials=2", "optimizer.learning_rate=interval(0.1,1)"], 2)],
)
def test_each_job_but_the_last_ends_with_the_number_of_jobs_done_and_the_time_left(
    sweep, total, start, monkeypatch
) -> None:
    for soon, told in ((math.inf, 0), (0.0, total - 1)):
        monkeypatch.setattr(pace, "SOON", soon)
        status, said = start("train", "seed_as_figure", *sweep)
        assert status == 0, said
        lines = re.findall(
            r"^(\d) of (\d) jobs done, \d+:\d+:\d+ so far, (?:nearly done|about .+ left for the others)$", said, re.M
        )
        assert lines == [(str(done), str(total)) for done in range(1, told + 1)]


def test_a_grid_of_which_the_number_of_jobs_is_not_known_has_no_such_line(start, monkeypatch) -> None:
    monkeypatch.setattr(pace, "SOON", 0.0)
    status, said = start("train", "seed_as_figure", *GRID, "seed=range(1,4)")
    assert status == 0, said
    assert said.count("\njob ") == 3
    assert "jobs done" not in said


@pytest.mark.parametrize(("launcher", "is_told"), [("basic", True), ("joblib", False)])
def test_only_jobs_that_run_one_after_the_other_are_counted(
    launcher: str, is_told: bool, monkeypatch, tmp_path
) -> None:
    monkeypatch.setattr(Endings, "ours", True)
    monkeypatch.setattr(Endings, "latest", None)
    monkeypatch.setattr(Endings, "total", 3)
    given = [f"hydra/launcher={launcher}", f"hydra.sweep.dir={tmp_path}"]
    endings = Endings()
    endings.on_multirun_start(OURS.compose("run", given, RunMode.MULTIRUN))
    assert (endings.pace is not None) == is_told


def test_a_single_job_ends_without_such_a_line(start, monkeypatch) -> None:
    monkeypatch.setattr(pace, "SOON", 0.0)
    for arguments in (["seed=1"], ["-m", "seed=1"]):
        status, said = start("train", "seed_as_figure", *arguments)
        assert status == 0, said
        assert "jobs done" not in said


def test_optuna_maximises_what_jobs_return_over_an_interval(start, tmp_path: Path) -> None:
    keys = ["hydra.sweeper.n_trials=4", "optimizer.learning_rate=interval(0.1,0.9)", "hydra.sweeper.sampler.seed=1"]
    status, said = start("train", "echo_rate", *OPTUNA, *keys)
    assert status == 0, said
    (sweep,) = (tmp_path / "out/train/multirun").iterdir()
    rates = [float(row["optimizer.learning_rate"]) for row in rows_of(sweep)]
    assert len(rates) == 4
    assert len(set(rates)) == 4
    assert all(0.1 <= rate <= 0.9 for rate in rates)
    found = yaml.safe_load((sweep / "optimization_results.yaml").read_text())
    assert found["best_value"] == max(rates) == found["best_params"]["optimizer.learning_rate"]


@pytest.mark.parametrize(
    ("search", "refused"),
    [
        (SEARCH, "guidance.period=11"),  # Optuna's range has its end
        ([*SEARCH, "guidance.period=range(1,4)"], "guidance.period=4"),
        ([*SEARCH, "guidance.period=int(interval(2,5))"], "guidance.period=5"),
        ([*SEARCH, "guidance.period=choice(1,4,2)"], "guidance.period=4"),
        ([*SEARCH, "guidance.period=shuffle(range(1,5))"], "guidance.period=4"),
        ([*GRID, "guidance.period=range(1,5)"], "guidance.period=4"),
    ],
)
def test_a_value_that_a_sweeper_may_choose_and_that_is_not_allowed_is_refused_first(
    search, refused, start, tmp_path
) -> None:
    keys = ["guidance=direct", "generator.num_steps=8"]  # 3 steps are left when guidance starts
    status, said = start("run", "seed_as_figure", *keys, *search)
    assert (status, said.count("\n")) == (2, 1)
    assert said.startswith(f"distdiff: {refused} is not allowed: from start_step 3 on there are 3 steps")
    assert said.rstrip().endswith("): type other values")
    assert "; the sweep may choose this (guidance.period=" in said
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "search",
    [
        [*SEARCH, "guidance.period=range(1,3)"],
        [*SEARCH, "guidance.period=shuffle(range(1,4))"],  # of which Optuna makes a choice, without the stop
        [*GRID, "guidance.period=range(1,4)"],
        [*GRID, "guidance.period=range(1,6,2)"],  # 1 and 3: the plugin leaves out the last value
        [*SEARCH, "hydra.sweeper.max_failure_rate=1", "guidance.period=choice(1,3,4)"],
    ],
)
def test_a_sweep_of_which_all_values_are_allowed_or_may_fail_begins(search: list[str], start, tmp_path: Path) -> None:
    keys = ["guidance=direct", "generator.num_steps=8", "hydra.sweeper.n_trials=4"]
    status, said = start("run", "seed_as_figure", *keys, *search)
    assert status == ("failed: guidance.period=4" in said), said
    (sweep,) = (tmp_path / "out/run/multirun").iterdir()
    made = [row["guidance.period"] for row in rows_of(sweep) if not row.get("error")]
    assert {*made} <= {"1", "2", "3"}


MINIMISING = [["-m", "hydra/sweeper=optuna"], [*OPTUNA, "hydra.sweeper.direction=minimize"]]


@pytest.mark.parametrize("arguments", MINIMISING)
def test_a_sweep_that_would_look_for_the_lowest_accuracy_is_refused(arguments, start, tmp_path: Path) -> None:
    status, said = start("run", "talk", *arguments, "guidance.rho=interval(0.1,1)")
    assert (status, said.count("\n")) == (2, 1)
    assert "would look for the lowest accuracy: type hydra.sweeper.direction=maximize" in said
    assert not (tmp_path / "out").exists()


def test_a_distance_may_be_minimised(start) -> None:
    keys = ["study.objective=frechet_distance", "hydra.sweeper.n_trials=1", "guidance.rho=interval(0.1,1)"]
    status, said = start("run", "seed_as_figure", "-m", "hydra/sweeper=optuna", *keys)
    assert status == 0, said


def test_a_command_without_a_figure_is_refused_for_such_a_sweep(start, tmp_path: Path) -> None:
    status, said = start("expand", "talk", *OPTUNA, "guidance.rho=interval(0.1,1)", "hydra.sweeper.n_trials=3")
    assert (status, said.count("\n")) == (2, 1)
    assert said.startswith("distdiff: expand returns no figure that a sweeper could optimise")
    assert not (tmp_path / "out").exists()


def test_a_study_without_the_chosen_row_ends_such_a_sweep_in_one_line(start) -> None:
    status, said = start("run", "talk", *OPTUNA, "guidance.rho=interval(0.1,1)", "hydra.sweeper.n_trials=3")
    assert status == 1
    (line,) = [line for line in said.splitlines() if line.startswith("distdiff: ")]
    assert line.startswith("distdiff: study.methods has no row `chosen`")
    assert "Traceback" not in said


CANNOT_BEGIN = {
    "hydra.sweeper.direction=up": "direction",
    "hydra.sweeper.n_trials=0": "No trials",
    "optimizer.learning_rate=interval(0.1,-1)": "low",
    "augmentation=glob(*)": "a kind of sweep",
    "hydra.sweeper.storage=foo": "URL",
    "hydra.sweeper.custom_search_space=nosuch.f": "nosuch",
}


@pytest.mark.parametrize("argument", CANNOT_BEGIN)
def test_a_sweeper_that_cannot_begin_is_one_line(argument: str, start) -> None:
    status, said = start("train", "echo_rate", *OPTUNA, "hydra.sweeper.n_trials=1", argument)
    assert (status, said.count("\n")) == (2, 1), said
    assert said.startswith("distdiff: Hydra cannot begin the job: ")
    assert CANNOT_BEGIN[argument] in said


def test_trials_that_all_fail_are_each_one_line(start) -> None:
    keys = ["hydra.sweeper.max_failure_rate=1.0", "hydra.sweeper.n_trials=2", "seed=choice(2)"]
    status, said = start("train", "score", *OPTUNA, *keys)
    assert status == 1
    assert [line for line in said.splitlines() if "distdiff" in line] == ["distdiff: seed=2: not today"] * 2
    assert "Traceback" not in said


def test_jobs_that_share_a_directory_have_their_own_figures_in_the_table(start, tmp_path: Path) -> None:
    status, said = start("train", "score", "-m", "seed=1,5", "hydra.sweep.subdir=same", f"hydra.sweep.dir={tmp_path}/s")
    assert status == 0, said
    assert [row["accuracy"] for row in rows_of(tmp_path / "s")] == ["0.1", "0.5"]


@pytest.mark.parametrize("argument", ["hydra.run.dir=/proc/x", "+hydra.callbacks.mine._target_=nosuch.Cls"])
def test_what_hydra_cannot_begin_with_is_one_line(argument: str, start) -> None:
    status, said = start("train", "talk", argument)
    assert (status, said.count("\n")) == (2, 1), said
    assert said.startswith("distdiff: Hydra cannot begin the job: ")


@pytest.mark.parametrize("before", [None, "0"])
def test_how_hydra_shows_errors_is_left_as_it_was(before, start, monkeypatch) -> None:
    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)
    if before is not None:
        monkeypatch.setenv("HYDRA_FULL_ERROR", before)
    assert start("train", "refuse")[0] == 2
    assert start("train", "talk")[0] == 0
    assert os.environ.get("HYDRA_FULL_ERROR") == before


def test_our_callback_may_be_taken_out(start) -> None:
    assert start("train", "talk", "~hydra.callbacks.endings")[0] == 0
    status, said = start("train", "refuse", "~hydra.callbacks.endings")
    assert (status, "distdiff: dataset.root=nowhere: no such folder" in said) == (2, True)


def test_the_shipped_search_maximises_and_is_a_multirun_without_a_flag(start, tmp_path: Path) -> None:
    status, said = start("run", "seed_as_figure", "hparams_search=guidance_strength", "hydra.sweeper.n_trials=3")
    assert status == 0, said
    (sweep,) = (tmp_path / "out/run/multirun").iterdir()
    assert [set(row) >= {"guidance.rho", "guidance.period"} for row in rows_of(sweep)] == [True] * 3
    assert OURS.compose("run", ["hparams_search=guidance_strength"]).hydra.sweeper.direction == "maximize"


def test_a_mistake_in_a_key_that_a_sweeper_will_choose_is_found_before_the_first_job(start) -> None:
    for typed, words in {
        "guidance.roh=interval(0.1,1)": "did you mean guidance.rho?",
        "guidance.rho=interval(-1,1)": "guidance.rho=-1.0 is not allowed: a number at least 0",
    }.items():
        status, said = start("run", "talk", *OPTUNA, typed)
        assert (status, said.count("\n")) == (2, 1), said
        assert words in said


def test_an_interval_without_such_a_sweeper_is_answered_with_the_sweeper(start) -> None:
    status, said = start("run", "talk", "-m", "guidance.rho=interval(0.1,1)")
    assert (status, said.count("\n")) == (2, 1)
    assert "hydra/sweeper=optuna does" in said


def test_a_multirun_studies_validation_data_unless_told_otherwise() -> None:
    assert compose("run", []).study.split == "test"
    assert [job.study.split for job in configure_jobs("run", ["seed=0,1"])] == ["validation"] * 2
    assert [job.study.split for job in configure_jobs("run", ["seed=0,1", "study.split=test"])] == ["test"] * 2


def test_relative_paths_hold_where_hydra_changes_the_directory(
    start, monkeypatch, image_folder, tmp_path: Path
) -> None:
    monkeypatch.chdir(image_folder.parent)
    given = ["hydra.job.chdir=true", "dataset=imagefolder", f"dataset.root={image_folder.name}"]
    for more in ([], ["-m", "seed=1,2"]):
        status, said = start("train", "say_where", *given, "paths.data_dir=some/data", *more)
        assert status == 0, said
        told = [json.loads(line) for line in said.splitlines() if line.startswith("{")]
        for each in told:
            assert each["root"] == str(image_folder)
            assert each["data_dir"] == str(image_folder.parent / "some/data")
            assert each["cwd"] == each["run_dir"]
            assert each["run_dir"].startswith(f"{tmp_path}/out/train/")
        assert len(told) == (2 if more else 1)
    assert Path.cwd() == image_folder.parent


def test_hub_ids_stay_hub_ids_where_hydra_changes_the_directory(monkeypatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "some").mkdir()
    (tmp_path / "some/lora.safetensors").touch()
    given = ["hydra.job.chdir=true", "encoder=hf", "encoder.model=facebook/dinov2-small", "expansion.output_dir=a/b"]
    config = compose("expand", [*given, "generator=sd15", "generator.lora=[some/lora.safetensors:0.5,owner/repo]"])
    assert config.encoder.model == "facebook/dinov2-small"
    assert config.generator.model == compose("expand", ["generator=sd15"]).generator.model
    assert config.generator.lora == [f"{tmp_path}/some/lora.safetensors:0.5", "owner/repo"]
    assert config.expansion.output_dir == f"{tmp_path}/a/b"


@pytest.mark.parametrize(
    ("launcher", "overrides", "devices"),
    [
        (f"{JOBLIB}.JoblibLauncher", [], [[0], [1], [2], [0]]),
        (f"{JOBLIB}.JoblibLauncher", ["trainer.devices=[1]"], [[1]] * 4),
        (f"{JOBLIB}.JoblibLauncher", ["trainer=cpu"], [1] * 4),
        ("hydra._internal.core_plugins.basic_launcher.BasicLauncher", [], [1] * 4),
    ],
)
def test_jobs_that_run_at_once_take_turns_on_the_gpus(launcher, overrides, devices, monkeypatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    found = []
    for number in range(4):
        config = compose("train", ["trainer=gpu", *overrides])
        hydra = OURS.compose("train", ["hydra.mode=MULTIRUN"]).hydra
        hydra.launcher = {"_target_": launcher}
        hydra.job.num = number
        share_gpus(config, hydra)
        found.append(config.trainer.devices)
    assert found == devices


def test_a_hydra_that_is_active_is_neither_used_nor_changed(tmp_path: Path) -> None:
    """A notebook's own Hydra: its configuration composes as before while ours are composed."""
    from hydra import compose as compose_theirs
    from hydra import initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra

    (tmp_path / "theirs.yaml").write_text("answer: 42\n")
    before = HydraConfig.instance().cfg
    with initialize_config_dir(str(tmp_path), version_base="1.3", job_name="theirs"):
        theirs = GlobalHydra.instance().hydra
        assert compose("expand", ["guidance=direct", "guidance.rho=2"]).guidance.rho == 2
        assert OURS.options("trainer")
        assert GlobalHydra.instance().hydra is theirs
        config = compose_theirs("theirs", return_hydra_config=True)
        assert config.answer == 42
        assert config.hydra.job.name == "theirs"
    assert HydraConfig.instance().cfg is before
    assert not GlobalHydra.instance().is_initialized()


def test_another_applications_configuration_takes_ours_from_the_search_path(tmp_path: Path) -> None:
    from hydra import compose as compose_theirs
    from hydra import initialize_config_dir

    (tmp_path / "theirs.yaml").write_text(
        "defaults: [guidance: transform, generator: sd15, _self_]\nhydra: {searchpath: ['pkg://distdiff.conf']}\nseed: 3\n"
    )
    with initialize_config_dir(str(tmp_path), version_base="1.3"):
        config = compose_theirs("theirs", overrides=["+dataset=digits", "guidance.rho=7"])
        assert (config.guidance.rho, config.seed, config.dataset._target_.split(".")[0]) == (7, 3, "distdiff")
    distdiff.register_configs()
    (tmp_path / "whole.yaml").write_text(
        "defaults: [run, _self_]\nhydra: {searchpath: ['pkg://distdiff.conf']}\nseed: 9\n"
    )
    with initialize_config_dir(str(tmp_path), version_base="1.3"):
        config = compose_theirs("whole", overrides=["guidance=transform"])
        assert (config.seed, config.guidance.name, config.study.seeds) == (9, "transform", 5)
        with pytest.raises(ConfigCompositionException):
            compose_theirs("whole", overrides=["study.seeds=many"])


def test_a_refused_value_of_a_job_is_said_once_and_the_others_run(start) -> None:
    status, said = start("train", "score", "-m", "seed=1,2,5")
    assert status == 1
    assert [line for line in said.splitlines() if line.startswith("distdiff: ")] == ["distdiff: seed=2: not today"]
    with pytest.raises(UserError):
        configure_jobs("train", ["seed=1,x"])
