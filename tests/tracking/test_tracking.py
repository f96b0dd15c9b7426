"""The dashboard shows an expansion while it goes, one run a job, and a run ends however its job ends."""

import csv
import itertools
import json
import math
import os
import signal
from pathlib import Path
from statistics import median
from types import SimpleNamespace

import lightning.pytorch.loggers as lightning_loggers
import numpy as np
import pyarrow.parquet
import pytest
import torch
from conftest import compose
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from PIL import Image
from wandb_runs import exit_code, history, metrics_of, records

from distdiff.commands.configuration import configure_jobs
from distdiff.commands.expand import expand
from distdiff.errors import Stopped, UserError
from distdiff.expansion import tracking
from distdiff.expansion.tracking import TrackExpansion
from distdiff.expansion.writer import ExpandedWriter
from distdiff.methods.synthesis import Synthesized
from distdiff.tracking.loggers import build_logger, stage_logger, tracked
from distdiff.tracking.sections import SEVERAL

EXPANSION = {"images", "images_per_second", "energy_before", "energy_after", "failures", "memory_gb"}


@pytest.fixture
def given(small_run: list[str], image_folder: Path) -> list[str]:
    return [*small_run, "dataset=imagefolder", f"dataset.root={image_folder}", "expansion.batch_size=3"]


def run(given: list[str], folder: Path, *overrides: str) -> Path:
    folder.mkdir(parents=True)
    return expand(compose("expand", [*given, *overrides]), folder)


def test_an_expansion_is_charted_as_it_goes(given, monkeypatch, tmp_path: Path) -> None:
    """Oracle: the expanded dataset's own metadata. Every batch is logged here; by default every 15 seconds."""
    monkeypatch.setattr(TrackExpansion.__init__, "__defaults__", (lambda: 0, 0.0, 0.0))
    directory = run(given, tmp_path / "run", "logger=csv", "guidance=direct")
    with open(tmp_path / "run/metrics/expand/metrics.csv", newline="") as file:
        logged = list(csv.DictReader(file))
    rows = pyarrow.parquet.read_table(directory / "metadata.parquet").to_pylist()
    assert set(logged[0]) == EXPANSION | {"step"}
    assert [int(row["images"]) for row in logged] == [int(row["step"]) for row in logged] == [3, 6, 9, 12]
    for row, start in zip(logged, range(0, len(rows), 3), strict=True):
        for name in ("energy_before", "energy_after"):
            assert float(row[name]) == pytest.approx(median(r[name] for r in rows[start : start + 3]))
        assert float(row["images_per_second"]) > 0
        assert 0.05 < float(row["memory_gb"]) < 100
        assert row["failures"] == "0"


CAT = SimpleNamespace(class_name="cat")


class Rank:
    """Stands in for the trainer and for the module."""

    device = torch.device("cpu")


def test_charts_cost_a_log_at_most_every_few_seconds_and_the_end_is_always_logged(monkeypatch) -> None:
    """The clock is moved by hand: a batch of 2 every 4 seconds, on each of 2 ranks; values that are no number are left out."""
    clock = itertools.count(0, 4)
    monkeypatch.setattr(tracking.time, "perf_counter", lambda: now[0])
    now, logged, pictures = [0], [], []
    monkeypatch.setattr(
        tracking, "log_image", lambda _, name, picture, step, caption: pictures.append((step, picture.size))
    )

    class Logger:
        def log_metrics(self, values, step):
            logged.append((step, values))

        def save(self):
            pass

    tracker = TrackExpansion(Logger(), made=lambda: 4 * number, failures=lambda: 7, every=15, grid_every=30)
    tracker.on_predict_start(Rank(), Rank())
    for number in range(1, 11):
        now[0] = next(clock) + 4
        energies = {"energy_before": [float(number), math.nan]}
        tracker.on_predict_batch_end(Rank(), Rank(), Synthesized(torch.zeros(2, 3, 200, 100), energies), [CAT] * 2)
    tracker.on_exception(Rank(), Rank(), KeyboardInterrupt())
    tracker.on_predict_end(Rank(), Rank())
    assert [step for step, _ in logged] == [4, 20, 36, 40]
    assert [values["images_per_second"] for _, values in logged] == [1.0] * 4
    assert [values["energy_before"] for _, values in logged] == [1.0, 3.5, 7.5, 10.0]
    assert all(values["failures"] == 7 and "energy_after" not in values for _, values in logged)
    assert pictures == [(4, (2 * 64 + 2, 128)), (36, (2 * 64 + 2, 128))]


def test_wandb_gets_charts_pictures_and_the_end_of_the_run(given, tmp_path: Path) -> None:
    directory = run(given, tmp_path / "run", "logger=wandb")
    assert exit_code(tmp_path / "run") == 0
    rows = history(tmp_path / "run")
    steps = [row["Expansion/images"] for row in rows if "Expansion/failures" in row]
    assert steps == [3, 12]  # the first batch, and the end
    assert {f"Expansion/{name}" for name in EXPANSION - {"memory_gb"}} | {"System/memory_gb"} <= set(rows[0])
    pictures = [row for row in rows if "Expansion/samples/count" in row]
    assert [row["Expansion/samples/captions"] for row in pictures] == [["row by row: cat, cat, cat"]]
    (name,) = pictures[0]["Expansion/samples/filenames"]
    (path,) = (tmp_path / "run").glob(f"wandb/offline-run-*/files/{name}")
    with Image.open(path) as picture:
        assert picture.size == (3 * 34 - 2, 32)
    axes = {
        r.metric.glob_name or r.metric.name: r.metric.step_metric
        for r in records(tmp_path / "run")
        if r.HasField("metric")
    }
    assert axes["Expansion/*"] == "Expansion/images"
    assert len(pyarrow.parquet.read_table(directory / "metadata.parquet")) == 12


def test_the_epoch_of_a_pretraining_is_one_key_that_is_not_charted(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    with tracked(compose("pretrain", ["logger=wandb"]), tmp_path / "run") as logger:
        for stage in SEVERAL:
            stage_logger(logger, stage).log_metrics({f"{stage}/loss": 1.0, "epoch": 0}, 20)
    exit_code(tmp_path / "run")  # waits until all is written
    keys = {key for row in history(tmp_path / "run") for key in row if not key.startswith("_")}
    hidden = {name for name, metric in metrics_of(tmp_path / "run").items() if metric.options.hidden}
    assert keys - hidden == {f"Training/{stage}_loss" for stage in SEVERAL}
    assert keys & hidden == {"Training/epoch", "Training/step"}


def test_an_offline_run_is_said_with_the_command_that_uploads_it(tmp_path: Path, capsys) -> None:
    for logger in ("wandb", "csv", "none"):
        (tmp_path / logger).mkdir()
        with tracked(compose("expand", [f"logger={logger}"]), tmp_path / logger):
            pass
    lines = capsys.readouterr().out.splitlines()
    (folder,) = (tmp_path / "wandb").glob("wandb/offline-run-*")
    assert lines == [f"W&B      offline, to upload it: wandb sync {folder}"]


def test_a_wandb_run_ends_as_failed_where_its_job_is_stopped_or_fails(given, monkeypatch, tmp_path: Path) -> None:
    write = ExpandedWriter.write_on_batch_end

    def signalled(self, *arguments):
        os.kill(os.getpid(), signal.SIGTERM)
        write(self, *arguments)

    def broken(self, *arguments):
        raise OSError("no space left on device")

    for name, writer, error, code in (("a", signalled, Stopped, 143), ("b", broken, OSError, 1)):
        monkeypatch.setattr(ExpandedWriter, "write_on_batch_end", writer)
        with pytest.raises(error):
            run(given, tmp_path / name, "logger=wandb", f"expansion.output_dir={tmp_path}/{name}-data")
        assert exit_code(tmp_path / name) == code
    assert {row["Expansion/images"] for row in history(tmp_path / "a") if "Expansion/images" in row} == {3}


def test_a_sweep_is_one_group_with_a_run_a_job_that_holds_its_configuration(given, tmp_path: Path) -> None:
    sweep = tmp_path / "outputs/expand/multirun/2026-01-01_00-00-00"
    for number, config in enumerate(
        configure_jobs("expand", [*given, "logger=wandb", "guidance=direct", "guidance.rho=1,3"])
    ):
        (sweep / str(number)).mkdir(parents=True)
        expand(config, sweep / str(number))
    assert [exit_code(sweep / job) for job in ("0", "1")] == [0, 0]
    runs = [next(r.run for r in records(sweep / job) if r.HasField("run")) for job in ("0", "1")]
    assert [run.run_group for run in runs] == [sweep.name] * 2
    assert len({run.run_id for run in runs}) == 2
    for job, rho in (("0", 1.0), ("1", 3.0)):
        updates = [u for r in records(sweep / job) if r.HasField("config") for u in r.config.update]
        assert [json.loads(u.value_json) for u in updates if u.key == "guidance.rho"] == [rho]


def test_a_studys_charts_are_named_by_method_and_seed(given, tmp_path: Path) -> None:
    from distdiff.commands.run import run as run_study

    (tmp_path / "run").mkdir()
    names = ["study.methods=[none,randaugment]", "study.seeds=1", "measure.judge_steps=2", "logger=tensorboard"]
    names += ["train.steps=5"]
    run_study(compose("run", [*given, *names]), tmp_path / "run")
    values = tensorboard(tmp_path / "run")
    for name in EXPANSION:
        assert values[f"expand/none/seed0/{name}"]
    assert values["expand/none/seed0/images"] == values["expand/randaugment/seed0/images"] == [3.0, 12.0]
    assert "expand/randaugment/seed0/energy_after" not in values
    assert any(name.startswith("train/none/seed0/") for name in values)
    for name in ("accuracy", "frechet_distance", "label_consistency", "coverage", "energy_after", "images_per_second"):
        assert len(values[f"none/{name}"]) == 1
    assert "randaugment/energy_after" not in values
    assert values["samples"]


def tensorboard(folder: Path) -> dict[str, list[float]]:
    """Every tag's values in a run's event files, pictures by their heights."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    values: dict[str, list[float]] = {}
    for path in sorted(folder.glob("tensorboard/events.*")):
        events = EventAccumulator(str(path)).Reload()
        for tag in events.Tags()["scalars"]:
            values.setdefault(tag, []).extend(event.value for event in events.Scalars(tag))
        for tag in events.Tags()["images"]:
            values.setdefault(tag, []).extend(event.height for event in events.Images(tag))
    return values


def test_tensorboard_gets_charts_and_pictures(given, tmp_path: Path) -> None:
    run(given, tmp_path / "run", "logger=tensorboard")
    values = tensorboard(tmp_path / "run")
    assert values["expand/images"] == [3.0, 12.0]
    assert values["expand/samples"] == [32]
    assert np.isfinite(values["energy_after_median"]).all()


def test_a_missing_tensorboard_is_one_line(monkeypatch, tmp_path: Path) -> None:
    def missing(*_: object, **__: object) -> None:
        raise ModuleNotFoundError("Neither `tensorboard` nor `tensorboardX` is available.\nTry it.")

    monkeypatch.setattr(lightning_loggers.TensorBoardLogger, "__init__", missing)
    with pytest.raises(UserError) as caught:
        build_logger(compose("expand", ["logger=tensorboard"]), tmp_path)
    assert "pip install tensorboard" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_every_logger_is_what_its_name_says(tmp_path: Path) -> None:
    kinds = {"csv": CSVLogger, "tensorboard": TensorBoardLogger, "none": type(None)}
    for name, kind in kinds.items():
        assert type(build_logger(compose("expand", [f"logger={name}"]), tmp_path / name)) is kind
