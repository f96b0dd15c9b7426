"""W&B with a server that is missing, refuses or falls silent, and runs that are continued; the server is a stand-in."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import compose
from wandb_runs import alone_with_wandb, kill_service, track  # noqa: F401 (a fixture)
from wandb_server import KEY, WandbServer

from distdiff.commands.expand import expand
from distdiff.errors import UserError
from distdiff.expansion.writer import ExpandedWriter
from distdiff.store.shares import Share, working_on
from distdiff.tracking.loggers import stage_logger, summarize, tracked

pytestmark = pytest.mark.usefixtures("alone_with_wandb")
UNUSED_PORT = "http://127.0.0.1:9"


@pytest.fixture
def server(monkeypatch):
    with WandbServer() as server:
        monkeypatch.setenv("WANDB_BASE_URL", server.url)
        monkeypatch.setenv("WANDB_API_KEY", KEY)
        monkeypatch.setenv("WANDB_INIT_TIMEOUT", "20")
        yield server


@pytest.mark.parametrize("kind", ["absent", "silent", 401, 403, 404, 500])
def test_a_server_that_cannot_be_used_costs_one_line_and_no_job(kind, server, monkeypatch, tmp_path, capsys) -> None:
    monkeypatch.setenv("WANDB_INIT_TIMEOUT", "1")
    server.refuses = kind if isinstance(kind, int) else None
    url = UNUSED_PORT if kind == "absent" else server.url
    monkeypatch.setenv("WANDB_BASE_URL", url)
    if kind == "silent":
        server.silence()
    started = time.monotonic()
    track(tmp_path / "run")
    assert time.monotonic() - started < 20
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith(f"W&B      the run goes on offline: {url} cannot be used: ")
    (folder,) = (tmp_path / "run/wandb").glob("offline-run-*")
    assert second == f"W&B      offline, to upload it: wandb sync {folder}"


def test_a_server_that_falls_silent_halfway_costs_one_line_and_a_bounded_wait(
    server, monkeypatch, tmp_path: Path, capsys
) -> None:
    monkeypatch.setenv("WANDB_FINISH_TIMEOUT", "1")
    started = time.monotonic()
    with tracked(compose("train", ["logger=wandb"]), tmp_path) as logger:
        server.silence()
        logger.log_metrics({"loss": 1.0}, 1)
    assert time.monotonic() - started < 20
    (line,) = capsys.readouterr().out.splitlines()
    (folder,) = (tmp_path / "wandb").glob("run-*")
    assert line.startswith("W&B      not all of the run could be uploaded (")
    said = line.partition("): wandb ")[2].split()
    assert said == ["sync", "--include-online", str(folder)]
    with WandbServer() as later:
        environment = os.environ | {"WANDB_BASE_URL": later.url}
        subprocess.run([sys.executable, "-m", "wandb", *said], check=True, capture_output=True, env=environment)
        (run,) = later.runs.values()
    assert [row["loss"] for row in run.history] == [1.0]


def test_a_service_process_that_is_killed_costs_one_line_and_neither_this_job_nor_the_next(
    server, tmp_path: Path, capsys
) -> None:
    with tracked(compose("train", ["logger=wandb"]), tmp_path) as logger:
        kill_service()
        for stage in (logger, stage_logger(logger, "train")):
            stage.log_metrics({"loss": 1.0}, 1)
        summarize(logger, {"accuracy": 1.0})
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("W&B      not all of the run could be uploaded (")
    track(tmp_path / "next")
    assert [run.exit_code for run in server.runs.values()] == [None, 0]


def test_a_command_ends_well_though_the_server_refuses_its_key(monkeypatch, tmp_path: Path) -> None:
    """In a process of its own, because other libraries write to the console too."""
    root = Path(__file__).resolve().parents[2]
    with WandbServer(refuses=401) as server:
        result = subprocess.run(
            [
                *(sys.executable, "experiments/train.py", "dataset.per_class=2", "train.steps=2"),
                f"paths.output_dir={tmp_path}/out",
            ],
            cwd=root,
            env=os.environ | {"WANDB_BASE_URL": server.url, "WANDB_API_KEY": KEY, "PYTHONPATH": str(root)},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.count("cannot be used") == 1
    (run_dir,) = (tmp_path / "out/train").iterdir()
    assert "accuracy" in json.loads((run_dir / "results.json").read_text())


def test_a_run_directory_that_is_used_again_continues_its_run(server, tmp_path: Path) -> None:
    first = track(tmp_path / "run", steps=(1, 2)).experiment
    second = track(tmp_path / "run", steps=(3,)).experiment
    assert second.id == first.id
    assert not first.resumed
    assert second.resumed
    (run,) = server.runs.values()
    assert [row["loss"] for row in run.history] == [0.5, 1.0, 1.5]
    assert track(tmp_path / "other").experiment.id != first.id
    assert track(tmp_path / "run", "logger.id=mine").experiment.id == "mine"
    assert track(tmp_path / "run", "logger.resume=never").experiment.id not in ("mine", first.id)


def test_a_run_that_the_server_does_not_have_is_refused_where_it_must_be_continued(server, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^logger=wandb: http://.* refuses this run: .*unknown") as caught:
        track(tmp_path / "run", "logger.id=unknown", "logger.resume=must")
    assert "\n" not in str(caught.value)


def test_offline_parts_of_a_run_are_one_run_after_wandb_sync(server, tmp_path: Path) -> None:
    ids = {track(tmp_path / "run", "logger.mode=offline", steps=steps).experiment.id for steps in ((1, 2), (3,))}
    assert len(ids) == 1
    folders = sorted((tmp_path / "run/wandb").glob("offline-run-*"), key=lambda folder: folder.stat().st_ctime)
    assert len(folders) == 2
    for folder in folders:
        subprocess.run([sys.executable, "-m", "wandb", "sync", str(folder)], check=True, capture_output=True)
    (run,) = server.runs.values()
    assert [row["loss"] for row in run.history] == [0.5, 1.0, 1.5]


@pytest.fixture
def given(small_run: list[str], image_folder: Path, tmp_path: Path) -> list[str]:
    images = ["dataset=imagefolder", f"dataset.root={image_folder}", "expansion.batch_size=3"]
    return [*small_run, *images, "logger=wandb", f"expansion.output_dir={tmp_path}/data"]


def make(given: list[str], folder: Path, *overrides: str) -> Path:
    folder.mkdir(parents=True)
    return expand(compose("expand", [*given, *overrides]), folder)


def test_a_requeued_expansion_continues_its_run_until_the_dataset_is_complete(
    server, given: list[str], monkeypatch, tmp_path: Path
) -> None:
    def broken(self, *arguments):
        raise OSError("no space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(ExpandedWriter, "write_on_batch_end", broken)
        with pytest.raises(OSError, match="no space"):
            make(given, tmp_path / "first")
    (name,) = server.runs
    assert (tmp_path / "data/.wandb-id").read_text().strip() == name
    assert server.runs[name].exit_code == 1
    directory = make(given, tmp_path / "second")
    (run,) = server.runs.values()
    assert run.exit_code == 0
    assert [row["Expansion/images"] for row in run.history if "Expansion/images" in row][-1] == 12
    assert list(directory.glob(".wandb-id*")) == []
    make(given, tmp_path / "third")
    assert len(server.runs) == 2


def test_each_split_of_an_expansion_has_a_run_of_its_own(server, given: list[str], tmp_path: Path) -> None:
    given = [*given, "expansion.total_split=2"]
    directory = make(given, tmp_path / "a", "expansion.split=0")
    assert [path.name for path in directory.glob(".wandb-id*")] == [".wandb-id-0-of-2"]
    make(given, tmp_path / "again", "expansion.split=0")
    assert len(server.runs) == 1
    make(given, tmp_path / "b", "expansion.split=1")
    assert len(server.runs) == 2
    assert list(directory.glob(".wandb-id*")) == []


def test_a_second_job_on_the_same_images_is_refused_before_it_touches_the_run(
    server, given: list[str], monkeypatch, tmp_path: Path
) -> None:
    given = [*given, "expansion.total_split=2"]
    directory = make(given, tmp_path / "a", "expansion.split=0")
    upserts = len(next(iter(server.runs.values())).upserts)
    with working_on(directory, Share(0, 2)), pytest.raises(UserError, match="is at work on split 0 of 2"):
        make(given, tmp_path / "b", "expansion.split=0")
    (run,) = server.runs.values()
    assert len(run.upserts) == upserts


def test_a_run_of_a_sweeps_agent_keeps_the_agents_id_and_the_sweeps_names(server, monkeypatch, tmp_path: Path) -> None:
    (tmp_path / "parameters.yaml").write_text("wandb_version: 1\nguidance.rho:\n  value: 0.3\n")
    monkeypatch.setenv("WANDB_SWEEP_ID", "sweep1")
    monkeypatch.setenv("WANDB_RUN_ID", "agentrun")
    monkeypatch.setenv("WANDB_PROJECT", "of-the-sweep")
    monkeypatch.setenv("WANDB_SWEEP_PARAM_PATH", str(tmp_path / "parameters.yaml"))
    track(tmp_path / "multirun/2026/0")
    (run,) = server.runs.values()
    assert list(server.runs) == ["agentrun"]
    assert (run.said("sweep"), run.said("project")) == ("sweep1", "of-the-sweep")
    assert (run.said("displayName"), run.said("groupName")) == (None, None)
    assert json.loads(run.said("config"))["guidance.rho"]["value"] == 0.3
