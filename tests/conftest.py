"""What tests share: a pipeline with random weights, a small image folder, composed configurations.

Large libraries are imported where they are used, since the process that starts the others runs no test.
"""

from __future__ import annotations

import copy
import gc
import logging
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator

os.environ.setdefault("OMP_NUM_THREADS", "1")  # as `make test` has it; with more, a study would start further processes
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("GOMP_SPINCOUNT", "2000")
os.environ["WANDB_MODE"] = "offline"
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_HOME"] = HUB_CACHE = tempfile.mkdtemp(prefix="distdiff-tests-")

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    import torch
    from omegaconf import DictConfig

ROOT = Path(__file__).resolve().parents[1]
HANDLED = (signal.SIGINT, signal.SIGTERM, signal.SIGPIPE, signal.SIGUSR1, signal.SIGCHLD)
LONGEST = (  # files that take 15 s and more
    *("study/test_study.py", "commands/test_own_options.py", "guidance/test_matrix.py", "ranks/test_ranks.py"),
    *("hub/test_hub.py", "tracking/test_wandb_server.py", "study/test_experiments.py", "ranks/test_multiruns.py"),
    *("config/test_config.py", "cli/test_sweeps.py", "generator/test_generator.py", "commands/test_installed.py"),
    *("commands/test_api.py", "expansion/test_expansion.py", "tuning/test_tuning.py", "config/test_options.py"),
    *("guidance/test_guidance.py", "tuning/test_agreement.py", "study/test_side_by_side.py", "hub/test_commits.py"),
    *("ranks/test_tuning_on_ranks.py", "study/test_factors.py", "pretraining/test_going_on.py"),
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files first, so that at the end no process waits for another one's long file."""
    places = [ROOT / "tests" / name for name in LONGEST]
    assert all(place.is_file() for place in places), "LONGEST names a file that is not there"
    items.sort(key=lambda item: places.index(item.path) if item.path in places else len(places))


def pytest_collection() -> None:
    """What is imported stays: looking through it for garbage again and again takes a fifth of the time of importing it."""
    gc.disable()


def pytest_collection_finish() -> None:
    """From here on Python looks for garbage, but less often than usual, and not in what has been imported."""
    if registry := sys.modules.get("lightning.fabric.utilities.registry"):
        # Constructing a trainer searches the metadata of all installed packages for callbacks: nine tenths of its time.
        registry.entry_points = cache(registry.entry_points)
    gc.freeze()
    gc.set_threshold(10_000, 20, 20)
    gc.enable()


def pytest_unconfigure() -> None:
    shutil.rmtree(HUB_CACHE, ignore_errors=True)


@pytest.fixture(autouse=True)
def signals_are_handled_as_before() -> Iterator[None]:
    """A handler that a test leaves behind would end the process much later, in a test that has nothing to do with it."""
    before = {number: signal.getsignal(number) for number in HANDLED}
    yield
    left = [number.name for number in HANDLED if signal.getsignal(number) != before[number]]
    for number, handler in before.items():
        signal.signal(number, handler)
    assert not left, f"the test has changed what happens on {', '.join(left)}"


@pytest.fixture(autouse=True)
def the_root_logger_is_as_before() -> Iterator[None]:
    """Hydra's `--info` leaves a handler whose stream is closed after the test: each later message would print a traceback."""
    root = logging.getLogger()
    level, before = root.level, root.handlers[:]
    yield
    root.setLevel(level)
    for handler in root.handlers[:]:
        if type(handler) is logging.StreamHandler and handler not in before:
            root.removeHandler(handler)


@pytest.fixture(autouse=True)
def nothing_is_shared_with_other_tests() -> None:
    """A test that replaces a part of the generator would leave what it has denoised to later tests of the same process."""
    from distdiff.generator.beginnings import OF_PROCESS

    OF_PROCESS.clear()


@pytest.fixture(autouse=True)
def nothing_is_said_of_slow_checking(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a busy machine, checking a configuration takes long, which a command says; tests count its lines."""
    monkeypatch.setattr("distdiff.cli.command.PATIENCE", 600.0)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--device", default="cpu", choices=("cpu", "cuda"), help="where the tests in tests/gpu run")


@pytest.fixture(scope="session")
def device(request: pytest.FixtureRequest) -> torch.device:
    """The device of `--device`, for tests that are marked `gpu`."""
    import torch

    name = request.config.getoption("--device")
    if name == "cuda" and not torch.cuda.is_available():
        pytest.fail("--device cuda: torch finds no GPU here")
    return torch.device(name, 0) if name == "cuda" else torch.device(name)


@pytest.fixture(scope="session")
def pipeline_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from pipelines import small_pipeline

    folder = tmp_path_factory.mktemp("pipeline")
    small_pipeline().save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def image_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes, one called `train`, one file called `x_val_2.png`."""
    import numpy as np
    from PIL import Image

    root = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    for name, files in {
        "cat": ["a.png", "b.png", "c.png", "d.png", "e.png"],
        "train": ["x_val_2.png", "test.png", "sub/1.png", "y.png", "z.png"],
    }.items():
        for file in files:
            path = root / name / file
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(0, 256, (40, 36, 3), dtype=np.uint8)).save(path)
    return root


@pytest.fixture
def small_run(pipeline_folder: Path, tmp_path: Path) -> list[str]:
    return small_overrides(pipeline_folder, tmp_path)


def small_overrides(pipeline_folder: Path, place: Path) -> list[str]:
    """Overrides of a run that takes seconds: a random pipeline, few steps, everything below `place`."""
    return [
        "generator=local",
        f"generator.model={pipeline_folder}",
        "generator.resolution=32",
        "generator.num_steps=6",
        "generator.cfg_scale=1",
        "expansion.factor=2",
        "expansion.batch_size=8",
        "encoder.guide.steps=3",
        "logger=none",
        f"paths.output_dir={place}/outputs",
    ]


def compose(command: str, overrides: list[str]) -> DictConfig:
    """The validated configuration of one job."""
    from distdiff.commands.configuration import configure

    return configure(command, overrides)


def compose_once(command: str, overrides: list[str]) -> DictConfig:
    """As `compose`, for tests that need the same configuration again and again: composed once, a copy for each.

    Composing takes 0.2 s. It is not for tests of the configuration itself, nor where a file that it checks may have gone.
    """
    return copy.deepcopy(_composed(command, tuple(overrides)))


@cache
def _composed(command: str, overrides: tuple[str, ...]) -> DictConfig:
    return compose(command, list(overrides))
