"""Short W&B runs for tests, which see none of the W&B settings of whoever runs the tests."""

import json
import os
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import wandb
from conftest import compose
from lightning.pytorch.loggers import WandbLogger
from wandb.proto.wandb_internal_pb2 import Record

from distdiff.tracking.loggers import tracked

WRITTEN = 20  # seconds within which W&B's service writes the end of a run


@pytest.fixture
def alone_with_wandb(monkeypatch, tmp_path: Path) -> Iterator[None]:
    """No variables, key or settings files of W&B; the current folder and the home folder are `tmp_path`."""
    wandb.teardown()  # first, so that the variable with which W&B names a service that has ended is not restored later
    for name in [name for name in os.environ if name.startswith("WANDB_")] + ["NETRC"]:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.chdir(tmp_path)
    yield
    wandb.teardown()


def kill_service() -> None:
    """Kills W&B's service process, which the run that has begun uses."""
    services = [child for child in psutil.Process().children() if child.name().startswith("wandb-core")]
    assert services
    for service in services:
        service.kill()
        service.wait()


def track(run_dir: Path, *overrides: str, steps: tuple[int, ...] = (1,)) -> WandbLogger:
    """A run of `train` that logs a loss at each of `steps`; the logger, whose run has ended."""
    run_dir.mkdir(parents=True, exist_ok=True)
    with tracked(compose("train", ["logger=wandb", *overrides]), run_dir) as logger:
        for step in steps:
            logger.log_metrics({"loss": step / 2}, step)
    return logger


def records(folder: Path) -> list[Record]:
    """What an offline W&B run holds, once it has ended; its service may write that a moment after the run was finished."""
    (path,) = folder.glob("wandb/offline-run-*/*.wandb")
    deadline = time.monotonic() + WRITTEN
    while True:
        found = list(_records(path.read_bytes()))
        if time.monotonic() > deadline or any(record.HasField("exit") for record in found):
            return found
        time.sleep(0.05)  # the service gives no sign when it has written


def _records(data: bytes) -> Iterator[Record]:
    """Those that are there whole, in LevelDB's log format: records in pieces within blocks of 32 KiB."""
    at, record = 7, b""
    while at + 7 <= len(data):
        left = 32768 - at % 32768
        if left < 7:
            at += left
            continue
        _, length, kind = struct.unpack("<IHB", data[at : at + 7])
        if at + 7 + length > len(data):  # being written
            return
        record += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # whole, or the last piece
            yield Record.FromString(record)
            record = b""


def history(folder: Path, whole: bool = True) -> list[dict[str, Any]]:
    """The rows that a W&B run logged; without `whole`, the parts of tables and pictures stand under one key."""
    rows = (record.history.item for record in records(folder) if record.HasField("history"))
    return [
        {
            item.key or ("/".join(item.nested_key) if whole else item.nested_key[0]): json.loads(item.value_json)
            for item in row
        }
        for row in rows
    ]


def metrics_of(folder: Path) -> dict[str, Any]:
    """What a W&B run said of its metrics, by name or beginning (`*`)."""
    found = (record.metric for record in records(folder) if record.HasField("metric"))
    return {metric.glob_name or metric.name: metric for metric in found}


def columns_of(folder: Path) -> dict[str, Any]:
    """The configuration of a W&B run."""
    updates = [u for record in records(folder) if record.HasField("config") for u in record.config.update]
    return {u.key or "/".join(u.nested_key): json.loads(u.value_json) for u in updates}


def summary_of(folder: Path) -> dict[str, Any]:
    """The final values of a W&B run."""
    updates = [u for record in records(folder) if record.HasField("summary") for u in record.summary.update]
    return {u.key or "/".join(u.nested_key): json.loads(u.value_json) for u in updates}


def exit_code(folder: Path) -> int:
    """With which status a W&B run ended."""
    return next(record.exit.exit_code for record in records(folder) if record.HasField("exit"))
