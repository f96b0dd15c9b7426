"""What identifies weights on disk: what is in the files, wherever and whenever they were written."""

import os
import shutil
import time
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import save_file

from distdiff.caching import fingerprint as fingerprinting
from distdiff.caching import hashing
from distdiff.caching.fingerprint import fingerprint_files

YEAR = 365 * 24 * 3600


@pytest.fixture(autouse=True)
def small_limits(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Files of a few kilobytes are large, and what is remembered of them lies below this test's folder."""
    monkeypatch.setattr(fingerprinting, "WHOLE_HASH_LIMIT", 1000)
    monkeypatch.setattr(hashing, "PART", 1000)
    monkeypatch.setattr(hashing, "PIECE", 300)
    monkeypatch.setattr(hashing, "SETTLED", 0.05)
    monkeypatch.setattr(constants, "HF_HOME", str(tmp_path / "home"))


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of large files, once for each time that one is read as a whole."""
    names: list[str] = []
    whole = hashing._hash

    def noted(path: Path) -> str:
        names.append(path.name)
        return whole(path)

    monkeypatch.setattr(hashing, "_hash", noted)
    return names


def weights(folder: Path, changed: int | None = None, suffix: str = ".safetensors") -> Path:
    """A model's folder of one large file, written long ago; one of its 2,000 values is another where `changed` says."""
    values = torch.zeros(2000)
    if changed is not None:
        values[changed] = 1.0
    folder.mkdir(exist_ok=True)
    file = folder / f"model{suffix}"
    save_file({"weight": values}, file)
    os.utime(file, (time.time() - YEAR,) * 2)
    return folder


@pytest.mark.parametrize("suffix", [".safetensors", ".bin"])
def test_a_copy_with_another_time_is_the_same_model(suffix: str, tmp_path: Path) -> None:
    first = weights(tmp_path / "home disk", suffix=suffix)
    second = tmp_path / "scratch disk"
    shutil.copytree(first, second, copy_function=shutil.copyfile)
    os.utime(second / f"model{suffix}")
    assert fingerprint_files(first) == fingerprint_files(second)
    files = (folder / f"model{suffix}" for folder in (first, second))
    assert len({fingerprint_files(file) for file in files}) == 1


@pytest.mark.parametrize("suffix", [".safetensors", ".bin"])
@pytest.mark.parametrize("position", [0, 777, 1999])
def test_one_changed_weight_is_another_model_though_size_header_and_time_are_the_same(
    position: int, suffix: str, tmp_path: Path
) -> None:
    before, after = weights(tmp_path / "a", suffix=suffix), weights(tmp_path / "b", position, suffix)
    stats = [(folder / f"model{suffix}").stat() for folder in (before, after)]
    assert stats[0].st_size == stats[1].st_size
    assert fingerprint_files(before) != fingerprint_files(after)


def test_a_file_that_is_written_to_in_place_is_another_model(tmp_path: Path, hashed: list[str]) -> None:
    """Though its size is the same, and its time was set back."""
    folder = weights(tmp_path / "a")
    _let_it_settle(folder)
    before = fingerprint_files(folder)
    file = folder / "model.safetensors"
    was = file.stat()
    with open(file, "r+b") as stream:
        stream.seek(-1, os.SEEK_END)
        stream.write(b"\x3f")
    os.utime(file, ns=(was.st_mtime_ns, was.st_mtime_ns))
    assert (file.stat().st_ino, file.stat().st_size, file.stat().st_mtime_ns) == (
        was.st_ino,
        was.st_size,
        was.st_mtime_ns,
    )
    assert fingerprint_files(folder) != before
    assert len(hashed) == 2


def test_a_large_file_is_read_once_and_a_copy_of_it_once_more(tmp_path: Path, hashed: list[str]) -> None:
    first = weights(tmp_path / "a")
    _let_it_settle(first)
    assert len({fingerprint_files(first) for _ in range(3)}) == 1
    assert len(hashed) == 1
    second = Path(shutil.copytree(first, tmp_path / "b"))
    _let_it_settle(second)
    assert {fingerprint_files(second) for _ in range(3)} == {fingerprint_files(first)}
    assert len(hashed) == 2


def test_a_file_that_changed_just_now_is_not_remembered(
    tmp_path: Path, hashed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its time of change may be that of its next change too."""
    monkeypatch.setattr(hashing, "SETTLED", 3600)
    folder = weights(tmp_path / "a")
    fingerprint_files(folder)
    fingerprint_files(folder)
    assert len(hashed) == 2


@pytest.mark.parametrize("damage", ["", "[]", '{"stamp": 1}'])
def test_where_nothing_can_be_remembered_the_file_is_read_again(
    damage: str, tmp_path: Path, hashed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = weights(tmp_path / "a")
    _let_it_settle(folder)
    identity = fingerprint_files(folder)
    (memory,) = (tmp_path / "home").rglob("*.json")
    memory.write_text(damage)
    assert fingerprint_files(folder) == identity
    (tmp_path / "file").touch()
    monkeypatch.setattr(constants, "HF_HOME", str(tmp_path / "file"))
    assert fingerprint_files(folder) == identity
    assert len(hashed) == 3


def _let_it_settle(folder: Path) -> None:
    """Waits until the file's time of change, which nobody can set, is old enough to count."""
    changed = (folder / "model.safetensors").stat().st_ctime
    time.sleep(max(0.0, changed + hashing.SETTLED - time.time() + 0.05))
