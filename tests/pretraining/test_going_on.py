"""A pretraining that is stopped says so, keeps its checkpoints, and goes on from them to the same pipeline."""

import os
import signal
import sys
import time
from pathlib import Path

import forked
import pytest
from conftest import compose

from distdiff.console.progress import StageProgress
from distdiff.errors import Stopped
from distdiff.pretraining.pretrain import pretrain

SMALL = [
    "dataset.num_images=200",
    "pretrain.autoencoder_steps=5",
    "pretrain.denoiser_steps=5",
    "pretrain.autoencoder_batch_size=4",
    "pretrain.denoiser_batch_size=4",
    "pretrain.autoencoder_channels=[8,8]",
    "pretrain.unet_channels=[16,16]",
    "pretrain.text_width=16",
    "pretrain.text_layers=1",
    "pretrain.image_size=16",
    "logger=none",
]


def run(place: Path, *more: str) -> Path:
    run_dir = place / "run"
    run_dir.mkdir(parents=True, exist_ok=True)
    return pretrain(compose("pretrain", [*SMALL, f"paths.output_dir={place}", *more]), run_dir)


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*.safetensors")}


def signal_at(monkeypatch: pytest.MonkeyPatch, number: int, stage: str, step: int) -> list[int]:
    """Sends this process a signal after a training step of a stage, once. Returns a list of the steps that are taken."""
    before, pending, steps = StageProgress.on_train_batch_end, [number], []

    def on_train_batch_end(self: StageProgress, trainer: object, *rest: object) -> None:
        before(self, trainer, *rest)
        steps.append(trainer.global_step)
        if pending and self.title == f"pretrain {stage}" and trainer.global_step == step:
            os.kill(os.getpid(), pending.pop())

    monkeypatch.setattr(StageProgress, "on_train_batch_end", on_train_batch_end)
    return steps


@pytest.fixture(autouse=True)
def short_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("distdiff.pretraining.pretrain.GRID_STEPS", 1)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The weights of a pretraining that nothing stopped."""
    return files_of(run(tmp_path_factory.mktemp("whole")))


@pytest.mark.parametrize(
    ("number", "stage", "step"),
    [
        (signal.SIGTERM, "autoencoder", 2),
        (signal.SIGINT, "autoencoder", 5),
        (signal.SIGTERM, "denoiser", 1),
        (signal.SIGUSR1, "denoiser", 3),
    ],
)
def test_a_stopped_pretraining_goes_on_to_the_same_weights(
    number: int, stage: str, step: int, whole: dict[str, bytes], tmp_path: Path, monkeypatch, capsys
) -> None:
    steps = signal_at(monkeypatch, number, stage, step)
    with pytest.raises(Stopped) as stop:
        run(tmp_path)
    assert stop.value.exit_status == 128 + number
    taken = len(steps)
    folder = run(tmp_path)
    assert len(steps) == 10  # none is taken twice
    assert steps[taken:] == [*range(1, 6), *range(1, 6)][taken:]
    assert f"pretrain {stage} goes on from step {step} of 5" in capsys.readouterr().out
    assert files_of(folder) == whole
    assert not list(tmp_path.rglob("*.ckpt"))  # nothing is left of a finished pretraining


def test_other_keys_begin_anew_and_a_damaged_checkpoint_is_named(
    whole: dict[str, bytes], tmp_path: Path, monkeypatch, capsys
) -> None:
    signal_at(monkeypatch, signal.SIGTERM, "denoiser", 3)
    with pytest.raises(Stopped):
        run(tmp_path)
    other = files_of(run(tmp_path, "seed=1"))
    assert all(other[name] != weights for name, weights in whole.items())
    assert "goes on" not in capsys.readouterr().out
    for path in tmp_path.rglob("*.ckpt"):
        path.write_bytes(path.read_bytes()[:1000])
    assert files_of(run(tmp_path)) == whole
    assert capsys.readouterr().out.count("the training begins again") == 2


def test_the_command_ends_as_others_do_after_a_signal(tmp_path: Path) -> None:
    """Exit status 143 and one line; the same command then goes on."""
    command = [sys.executable, "experiments/pretrain.py", *SMALL, "pretrain.denoiser_steps=100000"]
    command += [f"paths.output_dir={tmp_path}", "pretrain.grid_every=100000"]
    process = forked.Started(command)
    deadline = time.monotonic() + 120
    while process.poll() is None and not list(tmp_path.rglob("autoencoder.ckpt")) and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(0.5)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 143
    assert errors == "distdiff: stopped by SIGTERM; what is finished is kept, and the same command goes on from there\n"
