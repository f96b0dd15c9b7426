"""Expanded datasets and models are artifacts that refer to files, also offline; W&B's failures cost one line and no job."""

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest
import wandb
from conftest import compose
from PIL import Image
from wandb_runs import alone_with_wandb, columns_of, exit_code, kill_service, records  # noqa: F401 (a fixture)
from wandb_server import KEY, WandbServer

from distdiff.commands.expand import expand
from distdiff.commands.train import train
from distdiff.tracking.lineage import DATASET, MODEL, Stored, log_made, log_used
from distdiff.tracking.loggers import log_image, log_images, stage_logger, tracked

pytestmark = pytest.mark.usefixtures("alone_with_wandb")
ROWS = [{"name": "a", "value": 1.0, "picture": Image.new("RGB", (8, 8))}]


def stored(folder: Path, kind: str = DATASET) -> Stored:
    folder.mkdir(parents=True)
    for name in ("manifest.json", "image 1.png", "image 2.png"):
        (folder / name).write_text(name)
    return Stored(kind, f"a name, of {folder.name}", folder, (folder / "manifest.json",), {"images": 2})


def run(folder: Path, *keys: str) -> Any:
    folder.mkdir(parents=True, exist_ok=True)
    return tracked(compose("train", ["logger=wandb", *keys]), folder)


def artifacts(folder: Path) -> dict[str, Any]:
    exit_code(folder)  # waits until all is written
    found = (record.artifact for record in records(folder) if record.HasField("artifact"))
    return {artifact.name: artifact for artifact in found if artifact.type in (DATASET, MODEL)}


def test_what_a_run_makes_is_the_same_artifact_as_what_another_run_uses(tmp_path: Path) -> None:
    data = stored(tmp_path / "with space/data")
    with run(tmp_path / "maker") as logger:
        log_made(logger, data)
    with run(tmp_path / "user") as logger:
        log_used(logger, data)
    (made,), (used,) = (artifacts(tmp_path / name).values() for name in ("maker", "user"))
    assert (made.name, made.digest) == (used.name, used.digest) == ("a-name-of-data", used.digest)
    assert (made.use_after_commit, used.use_after_commit) == (False, True)
    assert json.loads(made.metadata) == {"directory": str(data.folder), "images": 2}
    (entry,) = made.manifest.contents
    assert entry.ref == (data.folder / "manifest.json").as_uri()
    assert not entry.local_path, "nothing is uploaded"
    assert columns_of(tmp_path / "maker")["makes.dataset"] == [str(data.folder)]
    assert columns_of(tmp_path / "user")["uses.dataset"] == [str(data.folder)]


def test_an_expansion_is_what_one_run_makes_and_what_a_run_that_finds_it_uses(
    small_run: list[str], image_folder: Path, tmp_path: Path
) -> None:
    keys = [*small_run, "dataset=imagefolder", f"dataset.root='{image_folder}'", "logger=wandb"]
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        place = str(expand(compose("expand", keys), tmp_path / name))
    ((made,), (used,)) = (artifacts(tmp_path / name).values() for name in ("first", "second"))
    assert (made.name, made.digest) == (used.name, used.digest)
    assert (made.use_after_commit, used.use_after_commit) == (False, True)
    first, second = (columns_of(tmp_path / name) for name in ("first", "second"))
    assert (first["makes.dataset"], second["uses.dataset"]) == ([place], [place])
    assert {"uses.dataset"} & first.keys() == {"makes.dataset"} & second.keys() == set()


def test_weights_are_what_one_run_makes_and_what_a_run_that_finds_them_in_the_cache_uses(
    small_run: list[str], image_folder: Path, tmp_path: Path
) -> None:
    output = next(key for key in small_run if key.startswith("paths.output_dir="))
    keys = [
        "dataset=imagefolder",
        f"dataset.root='{image_folder}'",
        "logger=wandb",
        output,
        "train.steps=2",
        "trainer=cpu",
    ]
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        train(compose("train", keys), tmp_path / name)
    ((made,), (used,)) = (artifacts(tmp_path / name).values() for name in ("first", "second"))
    assert (made.type, made.name, made.digest) == (MODEL, used.name, used.digest)
    assert (made.use_after_commit, used.use_after_commit) == (False, True)
    assert columns_of(tmp_path / "first")["makes.model"] == columns_of(tmp_path / "second")["uses.model"]


def test_a_server_is_told_what_a_run_makes_and_uses(monkeypatch, tmp_path: Path) -> None:
    with WandbServer() as server:
        monkeypatch.setenv("WANDB_BASE_URL", server.url)
        monkeypatch.setenv("WANDB_API_KEY", KEY)
        with run(tmp_path / "run") as logger:
            log_made(logger, stored(tmp_path / "data"))
            log_used(logger, stored(tmp_path / "model", MODEL))
    names = [artifact["artifactCollectionName"] for artifact in server.artifacts]
    assert sorted(names) == ["a-name-of-data", "a-name-of-model"]
    assert len(server.used) == 1
    (kept,) = server.runs.values()
    assert kept.exit_code == 0


def test_files_are_uploaded_where_a_key_asks_for_it(tmp_path: Path) -> None:
    data, model = stored(tmp_path / "data"), stored(tmp_path / "model", MODEL)
    with run(tmp_path / "run", "logger.log_dataset=true") as logger:
        log_made(logger, data, model)
    found = artifacts(tmp_path / "run")
    copied = found["a-name-of-data"].manifest.contents
    assert sorted(entry.path for entry in copied) == ["image 1.png", "image 2.png", "manifest.json"]
    assert all(tmp_path / "run" in Path(entry.local_path).parents for entry in copied)
    assert [entry.local_path for entry in found["a-name-of-model"].manifest.contents] == [""]


def test_a_file_that_takes_long_to_read_is_told_by_its_place(monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setattr("distdiff.tracking.lineage.MOST_HASHED", 5)
    data = stored(tmp_path / "data")
    digests = set()
    for name in ("a", "b"):
        data.files[0].write_text(f"contents {name}")
        with run(tmp_path / name) as logger:
            log_made(logger, data)
        digests |= {artifact.digest for artifact in artifacts(tmp_path / name).values()}
    assert len(digests) == 1


def everything(logger: Any, folder: Path) -> None:
    """All that a dashboard can be told."""
    Image.new("RGB", (8, 8)).save(folder / "one.png")
    logger.show_table("a_table", ROWS)
    logger.show_bars("bars", "title", [{"name": "a", "value": 1.0}])
    logger.show_lines("Result/lines", "title", "x", {"a": [(1, 2.0), (2, 3.0)]})
    log_image(logger, "picture", ROWS[0]["picture"], caption="a caption")
    log_images(logger, "pictures", {"one": folder / "one.png"})
    stage = stage_logger(logger, "expand/none/seed0")
    stage.log_metrics({"images": 3.0, "energy_after": 1.0}, 3)
    log_image(stage, "samples", ROWS[0]["picture"], 3)
    log_made(logger, stored(folder / "data"))
    log_used(logger, stored(folder / "model", MODEL))


def test_what_wandb_does_not_take_costs_a_line_each_and_no_job(monkeypatch, tmp_path: Path, capsys) -> None:
    class Broken:
        def __init__(self, *_: object, **__: object) -> None:
            raise wandb.Error("cannot do this\nreally")

    with run(tmp_path / "run") as logger, monkeypatch.context() as patched:
        for name in ("Table", "Image", "Artifact"):
            patched.setattr(wandb, name, Broken)
        everything(logger, tmp_path)
    *lines, _ = capsys.readouterr().out.splitlines()
    assert [line for line in lines if not line.endswith(": cannot do this")] == []
    assert all(line.startswith("W&B      the dashboard lacks the ") for line in lines)
    what = [line.removeprefix("W&B      the dashboard lacks the ").partition(":")[0] for line in lines]
    assert {"table a_table", "chart Result/bars", "pictures picture", "pictures samples"} <= set(what)
    assert {"dataset a name, of data", "model a name, of model"} <= set(what)


def test_a_service_process_that_is_gone_costs_one_line(tmp_path: Path, capsys) -> None:
    with run(tmp_path / "run") as logger:
        kill_service()
        everything(logger, tmp_path)
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(" (")[0] for line in lines] == ["W&B      not all of the run could be uploaded"]


def test_a_silent_server_holds_nothing_up(monkeypatch, tmp_path: Path, capsys) -> None:
    monkeypatch.setattr("distdiff.tracking.wandb_run.GRACE", 2.0)
    with WandbServer() as server:
        monkeypatch.setenv("WANDB_BASE_URL", server.url)
        monkeypatch.setenv("WANDB_API_KEY", KEY)
        monkeypatch.setenv("WANDB_FINISH_TIMEOUT", "1")
        with run(tmp_path / "run") as logger:
            server.silence()
            began = time.monotonic()
            everything(logger, tmp_path)
        assert time.monotonic() - began < 30
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("W&B      not all of the run could be uploaded (")


def test_a_disabled_run_takes_everything_and_writes_nothing(tmp_path: Path, capsys) -> None:
    with run(tmp_path / "run", "logger.mode=disabled") as logger:
        everything(logger, tmp_path)
    assert os.listdir(tmp_path / "run") == []
    assert capsys.readouterr().out == ""
