"""Short W&B runs for tests, which see none of the W&B settings of whoever runs the tests."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import wandb
from conftest import compose
from lightning.pytorch.loggers import WandbLogger

from distdiff.tracking.loggers import tracked


@pytest.fixture
def alone_with_wandb(monkeypatch, tmp_path: Path) -> Iterator[None]:
    """No variables, key or settings files of W&B; the current folder and the home folder are `tmp_path`."""
    for name in [name for name in os.environ if name.startswith("WANDB_")] + ["NETRC"]:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.chdir(tmp_path)
    wandb.teardown()
    yield
    wandb.teardown()


def track(run_dir: Path, *overrides: str, steps: tuple[int, ...] = (1,)) -> WandbLogger:
    """A run of `train` that logs a loss at each of `steps`; the logger, whose run has ended."""
    run_dir.mkdir(parents=True, exist_ok=True)
    with tracked(compose("train", ["logger=wandb", *overrides]), run_dir) as logger:
        for step in steps:
            logger.log_metrics({"loss": step / 2}, step)
    return logger
