"""What goes wrong in a long expansion costs only itself, is listed with its reason, and never leaves a torn file."""

import errno
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import filelock._unix
import pytest
import torch
from conftest import compose
from copies import copying_jobs, failures, names, noise_folder
from filelock import SoftFileLease
from filelock._marker import OwnerRecord, encode_marker
from PIL import Image

from distdiff import locking
from distdiff.caching.stages import StageCache
from distdiff.commands.expand import expand
from distdiff.errors import UserError
from distdiff.expansion.job import ExpansionJob
from distdiff.expansion.writer import ExpandedWriter
from distdiff.locking import LEASE, Timeout, held
from distdiff.store.reading import read_expanded
from distdiff.store.shares import Share, working_on


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return noise_folder(tmp_path)


@pytest.fixture
def job(folder: Path, small_run: list[str], tmp_path: Path) -> Callable[..., ExpansionJob]:
    return copying_jobs(folder, small_run, tmp_path)


# Samples that are none


def test_samples_that_are_not_finite_or_constant_are_failures_and_the_rest_is_complete(job, capsys) -> None:
    plan = [
        f"a/{key}__0000.png" for key, label in zip(job().sources.keys, job().sources.labels, strict=True) if not label
    ]
    bad = {plan[0]: torch.full((3, 8, 8), torch.nan), plan[1]: torch.rand(3, 1, 1).expand(3, 8, 8)}
    made = job(bad=bad)
    assert made.run("test") == 0
    assert [(row["file_name"], row["stage"], row["copy"], row["reason"]) for row in failures(made.path)] == [
        (plan[0], "sample", 0, "the sample holds values that are not finite"),
        (plan[1], "sample", 0, "all pixels of the sample are equal"),
    ]
    assert not names(made.path) & bad.keys()
    assert len(read_expanded(made.path)) == len(names(made.path)) == 2 * len(made.sources) - 2
    assert "2 images failed (1 x the sample holds values that are not finite; 1 x all" in capsys.readouterr().out
    assert not list(made.path.glob(".*"))
    again = job(bad=bad)
    assert again.run("test") == 0
    assert not again.maker.asked  # the same seed gives the same sample
    (made.path / "failures.parquet").unlink()
    retried = job()
    assert retried.run("test") == 0
    assert set(retried.maker.asked) == bad.keys() <= names(made.path)
    assert not (made.path / "failures.parquet").exists()


def test_too_many_failed_samples_end_a_run_and_a_higher_limit_goes_on(job) -> None:
    bad = {f"{name}/{number}.png__0000.png": torch.zeros(3, 8, 8) for name in "ab" for number in range(10)}
    with pytest.raises(UserError, match=r"images failed, more than expansion.max_failures=2 allows .*all pixels"):
        job("expansion.max_failures=2", bad=bad).run("test")
    stopped = failures(job().path)
    assert len(stopped) == 4  # the batch in which it came to light
    with pytest.raises(UserError, match="4 of 4 images failed"):
        job("expansion.max_failures=2", bad=bad).run("test")
    made = job("expansion.max_failures=0.5", bad=bad)
    assert made.run("test") == 0
    assert len(failures(made.path)) == len(made.sources)
    assert len(names(made.path)) == len(made.sources)
    assert not {row["file_name"] for row in stopped} & set(made.maker.asked)


def test_failures_of_a_killed_run_are_kept_but_for_a_torn_line(job) -> None:
    made = job()
    row = {"source": "0.png", "class_name": "a", "file_name": None, "copy": 1, "stage": "sample", "reason": "why"}
    rows = [row | {"file_name": f"a/{key}__0001.png", "source": key} for key in made.sources.keys[:2]]
    journal = made.path / ".failures-0-of-1.jsonl"
    journal.write_text(json.dumps(rows[0]) + "\n" + json.dumps(rows[1])[:40])
    assert made.run("test") == 0
    assert failures(made.path) == [rows[0]]
    assert len(names(made.path)) == 2 * len(made.sources) - 1


# Disks


def no_space(*_: object, **__: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_full_disk_is_one_line_and_the_same_command_goes_on(job, monkeypatch) -> None:
    """RLIMIT_FSIZE lets the third kilobyte of any file fail as a full disk does; every PNG here is smaller than one."""
    made = job("expansion.factor=3")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    previous = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (3000, limits[1]))
        with pytest.raises(UserError, match=r"^expansion.output_dir=.*expanded: cannot write there \(File too large\)"):
            made.run("test")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, previous)
    kept = {name: (made.path / name).read_bytes() for name in names(made.path)}
    assert 0 < len(kept) < 3 * len(made.sources)
    again = job("expansion.factor=3")
    assert again.run("test") == 0
    assert not kept.keys() & set(again.maker.asked)
    assert {name: (made.path / name).read_bytes() for name in kept} == kept
    for name in names(made.path):
        with Image.open(made.path / name) as image:
            image.load()
    assert not list(made.path.glob(".*"))


@pytest.mark.parametrize(
    "place", ["pathlib.Path.write_bytes", "os.replace", "distdiff.store.formats.imagefolder.append_rows"]
)
def test_wherever_the_disk_is_full_nothing_counts_that_is_not_there(place: str, job, monkeypatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(place, no_space)
        with pytest.raises(
            UserError, match=r"cannot write there \(No space left on device\); what is finished is kept"
        ):
            job().run("test")
    made = job()
    assert not names(made.path)
    assert made.run("test") == 0
    assert len(names(made.path)) == 2 * len(made.sources)


def test_a_directory_that_is_removed_meanwhile_does_not_half_come_back(job, monkeypatch) -> None:
    made, write = job(), ExpandedWriter.write_on_batch_end

    def remove_first(self, *arguments):
        if len(names(made.path)) == 8:
            shutil.rmtree(made.path)
        write(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(ExpandedWriter, "write_on_batch_end", remove_first)
        with pytest.raises(
            UserError, match=r"cannot write there \(No such file or directory\); there is no such directory now"
        ):
            made.run("test")
    assert not made.path.exists()
    made = job()
    shutil.rmtree(made.path)  # between the claim and the run
    assert made.run("test") == 0
    assert len(names(made.path)) == 2 * len(made.sources)


def test_a_place_that_cannot_be_written_is_one_line_with_status_2(tmp_path: Path, folder: Path, small_run) -> None:
    (tmp_path / "file").write_text("no folder")
    config = compose(
        "expand",
        [*small_run, "dataset=imagefolder", f"dataset.root={folder}", f"expansion.output_dir={tmp_path}/file/x"],
    )
    with pytest.raises(UserError, match=r"^expansion.output_dir=.*/file/x: cannot write there \(Not a directory"):
        expand(config, tmp_path / "run")


def test_a_full_disk_under_the_cache_is_one_line_and_leaves_nothing(tmp_path: Path, monkeypatch) -> None:
    cache = StageCache(tmp_path)
    monkeypatch.setattr("pathlib.Path.write_text", no_space)
    with pytest.raises(UserError, match=r"^paths.cache_dir=.*No space left on device"):
        cache.get("stage", {"a": 1}, lambda folder: None)
    assert [path.suffix for path in (tmp_path / "stage").iterdir()] == [".lock"]


# Locks where the file system has none


@pytest.fixture
def without_flock(monkeypatch) -> None:
    def missing(_: int) -> bool:
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))

    monkeypatch.setattr(filelock._unix, "lock_fd_nonblocking", missing)
    monkeypatch.setattr(locking, "LEASE_SECONDS", 0.6)


def leave(path: Path, **owner: object) -> Path:
    """The lease of a process that ended without giving it back."""
    marker = Path(f"{path}{LEASE}")
    record = OwnerRecord(pid=1, hostname="another-host", mode="lease", token="ab" * 16, lease_duration=0.6)
    marker.write_bytes(encode_marker(record._replace(**owner)))
    return marker


def test_without_flock_a_lock_is_a_file_that_shows_signs_of_life(without_flock, tmp_path: Path) -> None:
    path, marker = tmp_path / ".lock", tmp_path / f".lock{LEASE}"
    with held(path):
        began = marker.stat().st_mtime_ns
        for _ in range(2):
            with pytest.raises(Timeout), held(path, timeout=0):
                pass
            time.sleep(0.5)  # longer than a lease lasts, both together
        assert marker.stat().st_mtime_ns > began
    assert not marker.exists()
    with held(path, timeout=0):
        assert marker.exists()


def test_a_lease_of_a_dead_process_of_this_host_is_taken_over_at_once(
    without_flock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though its last sign of life is recent, and without waiting for anything: at the first try."""
    monkeypatch.setattr(locking, "LEASE_SECONDS", 180)
    ended = "import sys, time; from filelock import SoftFileLease; import os, signal\n"
    ended += (
        "lease = SoftFileLease(sys.argv[1], lease_duration=180); lease.acquire(); os.kill(os.getpid(), signal.SIGKILL)"
    )
    subprocess.run([sys.executable, "-c", ended, str(tmp_path / f".lock{LEASE}")], check=False)
    assert (tmp_path / f".lock{LEASE}").exists()
    with held(tmp_path / ".lock", timeout=0):
        pass


@pytest.mark.parametrize("exchange", [True, False])
def test_a_lease_of_another_host_is_taken_over_when_it_shows_no_life(
    exchange: bool, without_flock, monkeypatch, tmp_path: Path, capsys
) -> None:
    if not exchange:  # as NFS and some parallel file systems are
        monkeypatch.setattr("filelock._soft.exchange_names", lambda *_: False)
    marker = leave(tmp_path / ".lock")
    with pytest.raises(Timeout), held(tmp_path / ".lock", timeout=0):  # it may have shown some just now
        pass
    time.sleep(0.7)
    tries, acquire = [], SoftFileLease.acquire
    monkeypatch.setattr(
        SoftFileLease, "acquire", lambda lease, timeout: tries.append(timeout) or acquire(lease, timeout=timeout)
    )
    for timeout in (0, -1):
        tries.clear()
        began = time.monotonic()
        with held(tmp_path / ".lock", timeout=timeout):
            assert time.monotonic() - began > 0.5  # it was watched for as long as a lease lasts
            assert len(tries) <= 2  # and not for much longer: once more where names cannot be exchanged
            assert sum(tries) < 1.5
        leave(tmp_path / ".lock")
        os.utime(marker, (0, 0))
    assert "no sign of life from its holder" in capsys.readouterr().out
    assert sorted(path.name for path in tmp_path.iterdir()) == [".lock", f".lock{LEASE}"]


def test_a_lease_of_another_host_that_shows_life_is_respected(without_flock, tmp_path: Path) -> None:
    """Its clock is an hour behind: only that the file changes counts."""
    marker = leave(tmp_path / ".lock")
    script = "import os, sys, time\nfor i in range(40):\n os.utime(sys.argv[1], (i, i)); time.sleep(0.1)"
    process = subprocess.Popen([sys.executable, "-c", script, str(marker)])
    try:
        while marker.stat().st_mtime > 100:
            time.sleep(0.01)
        with pytest.raises(Timeout), held(tmp_path / ".lock", timeout=0):
            pass
        assert process.poll() is None
    finally:
        process.kill()
        process.wait()


def test_shares_and_stages_are_guarded_without_flock_too(without_flock, tmp_path: Path, job) -> None:
    made = job()
    leave(made.path / ".share-0-of-1.lock")
    with pytest.raises(UserError, match="another process is at work on this directory"):
        made.run("test")
    (made.path / f".share-0-of-1.lock{LEASE}").unlink()
    with working_on(made.path, Share()), pytest.raises(UserError, match=rf"another process \({os.getpid()} on .*\)"):
        job().run("test")
    assert made.run("test") == 0
    assert not list(made.path.glob(".*"))
    cache = StageCache(tmp_path / "cache")
    assert cache.get("stage", {"a": 1}, lambda folder: (folder / "made").touch()).joinpath("made").exists()
    assert not list((tmp_path / "cache").rglob(f"*{LEASE}"))


def test_losing_a_lease_stops_the_process_as_sigterm_does(without_flock, tmp_path: Path, capsys) -> None:
    received = []
    previous = signal.signal(signal.SIGTERM, lambda number, _: received.append(number))
    try:
        with held(tmp_path / ".lock"):
            (tmp_path / f".lock{LEASE}").unlink()
            other = SoftFileLease(tmp_path / f".lock{LEASE}", lease_duration=0.6)
            other.acquire(timeout=5)
            for _ in range(100):
                if received:
                    break
                time.sleep(0.03)
    finally:
        signal.signal(signal.SIGTERM, previous)
    assert received == [signal.SIGTERM]
    assert "the lease is lost" in capsys.readouterr().out
