"""On a GPU, images are encoded and stored in threads while the next batch is made: the same files, and nothing is lost."""

import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import compose
from standin import Killed, standin_job

from distdiff.errors import UserError
from distdiff.expansion.job import ExpansionJob
from distdiff.expansion.writer import ExpandedWriter
from distdiff.store.formats.imagefolder import ImageFolder


@pytest.fixture
def in_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    setup = ExpandedWriter.setup

    def as_on_a_gpu(self, *arguments, **keys):
        self.in_threads = True
        setup(self, *arguments, **keys)

    monkeypatch.setattr(ExpandedWriter, "setup", as_on_a_gpu)


@pytest.fixture
def job(tmp_path: Path) -> Callable[[str], ExpansionJob]:
    config = compose("expand", ["expansion.factor=4", "expansion.batch_size=2", "logger=none"])
    return lambda name: standin_job(config, tmp_path / name, sources=3)[0]


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*.png")}


def storing_threads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the threads that encode images to store them."""
    seen: list[str] = []
    encode = ExpandedWriter.encode

    def noting(self, images):
        encoding = self.storage.options.encoding
        each = type(encoding).encode

        def noted(*given):
            seen.append(threading.current_thread().name)
            return each(*given)

        with monkeypatch.context() as patch:
            patch.setattr(type(encoding), "encode", noted)
            return encode(self, images)

    monkeypatch.setattr(ExpandedWriter, "encode", noting)
    return seen


def test_on_the_cpu_batches_are_stored_before_the_next_is_made(job, monkeypatch) -> None:
    seen = storing_threads(monkeypatch)
    job("plain").run("test")
    assert seen == ["MainThread"] * 12


def test_the_files_are_the_same_as_those_of_one_thread(job, in_threads, monkeypatch, tmp_path: Path) -> None:
    seen = storing_threads(monkeypatch)
    job("threads").run("test")
    assert sum(name.startswith("encode") for name in seen) == 12
    monkeypatch.undo()
    job("plain").run("test")
    assert files(tmp_path / "threads") == files(tmp_path / "plain")
    assert len(files(tmp_path / "plain")) == 12
    metadata = [(tmp_path / name / "metadata.parquet").read_bytes() for name in ("threads", "plain")]
    assert metadata[0] == metadata[1]


def test_a_batch_is_stored_while_the_next_is_made(job, in_threads, monkeypatch) -> None:
    """The first batch is stored only once the second is being made: with one thread this would never end."""
    made, stored, batches = threading.Event(), threading.Event(), []
    expansion = job("overlapping")
    write, sample = ImageFolder.write, expansion.synthesizer("").forward

    def late(self, batch):
        assert made.wait(60)
        write(self, batch)
        stored.set()

    def second_waits(items):
        batches.append(items)
        if len(batches) == 2:
            made.set()
            assert stored.wait(60)
        return sample(items)

    monkeypatch.setattr(ImageFolder, "write", late)
    monkeypatch.setattr(expansion.synthesizer(""), "forward", second_waits)
    assert expansion.run("test") == 0


@pytest.mark.parametrize("failing", [1, 6])
def test_a_full_disk_ends_the_run_in_one_line(failing: int, job, in_threads, monkeypatch, tmp_path: Path) -> None:
    write, calls = ImageFolder.write, []

    def full(self, batch):
        calls.append(1)
        if len(calls) == failing:
            raise OSError(28, "No space left on device")
        write(self, batch)

    with monkeypatch.context() as patch:
        patch.setattr(ImageFolder, "write", full)
        with pytest.raises(UserError, match="No space left on device"):
            job("full").run("test")
    assert len(files(tmp_path / "full")) < 12
    assert job("full").run("test") == 0
    assert len(files(tmp_path / "full")) == 12


def test_what_was_made_before_an_error_is_stored(job, in_threads, monkeypatch, tmp_path: Path) -> None:
    expansion = job("interrupted")
    synthesizer, batches = expansion.synthesizer(""), []
    sample = synthesizer.forward

    def interrupted(items):
        batches.append(items)
        if len(batches) == 4:
            raise Killed
        return sample(items)

    monkeypatch.setattr(synthesizer, "forward", interrupted)
    with pytest.raises(Killed):
        expansion.run("test")
    assert len(files(tmp_path / "interrupted")) == 6
