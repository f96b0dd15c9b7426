"""Stages in the cache: what a killed process leaves behind is removed, what a living one writes is not."""

import signal
import sys
import threading
from contextlib import AbstractContextManager
from pathlib import Path

import forked
import pytest
from waiting import wait_for

from distdiff.caching import stages
from distdiff.caching.stages import StageCache
from distdiff.locking import LEASE, held

HANGING_BUILD = """
import sys, time
from pathlib import Path
from distdiff.caching.stages import StageCache

def build(folder):
    (folder / "half.bin").write_bytes(bytes(1000))
    time.sleep(600)

StageCache(Path(sys.argv[1])).get("stage", {"made": "slowly"}, build)
"""


def kill_while_building(cache: Path) -> Path:
    """The temporary folder of a process that was killed with SIGKILL while it filled it."""
    script = cache / "build.py"
    script.write_text(HANGING_BUILD)
    process = forked.Started([sys.executable, str(script), str(cache)])
    wait_for(lambda: process.poll() is not None or list(cache.glob("stage/.*/half.bin")), 60)
    assert process.poll() is None, process.communicate()
    (half,) = cache.glob("stage/.*/half.bin")
    process.send_signal(signal.SIGKILL)
    assert process.wait(60) == -signal.SIGKILL
    assert [path.name for path in half.parent.iterdir()] == ["half.bin"]
    return half.parent


def fill(folder: Path) -> None:
    (folder / "whole.txt").write_text("whole")


def entries(folder: Path) -> list[str]:
    """What lies in a stage's folder, lock files aside."""
    return sorted(path.name for path in folder.iterdir() if not path.name.endswith(".lock"))


def test_a_stage_that_is_made_again_after_a_kill_leaves_no_temporary_folder(tmp_path: Path) -> None:
    aside = kill_while_building(tmp_path)
    found = StageCache(tmp_path).get("stage", {"made": "slowly"}, fill)
    assert not aside.exists()
    assert entries(tmp_path / "stage") == [found.name]


def test_a_killed_stage_that_nobody_asks_for_again_is_removed_when_another_is_made(tmp_path: Path) -> None:
    """For instance one that was killed because a key had a wrong value."""
    aside = kill_while_building(tmp_path)
    found = StageCache(tmp_path).get("stage", {"made": "otherwise"}, fill)
    assert not aside.exists()
    assert entries(tmp_path / "stage") == [found.name]


def test_what_a_living_process_is_writing_stays(tmp_path: Path) -> None:
    """Two stages of one kind are made at the same time; the second one to begin must leave the first one alone."""
    begun, finish = threading.Event(), threading.Event()

    def slow(folder: Path) -> None:
        fill(folder)
        begun.set()
        assert finish.wait(timeout=60)

    thread = threading.Thread(target=StageCache(tmp_path).get, args=("stage", {"made": "slowly"}, slow))
    thread.start()
    try:
        assert begun.wait(timeout=60)
        StageCache(tmp_path).get("stage", {"made": "otherwise"}, fill)
        (aside,) = (tmp_path / "stage").glob(".*/")
        assert (aside / "whole.txt").exists()
    finally:
        finish.set()
        thread.join()
    assert len(entries(tmp_path / "stage")) == 2


def test_folders_of_others_and_stages_under_a_lease_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A lease may be another machine's; to find out whether that machine is alive would take minutes."""
    asked = []

    def noted(path: str, timeout: float = -1) -> AbstractContextManager[None]:
        asked.append(Path(path).name)
        return held(path, timeout)

    monkeypatch.setattr(stages, "held", noted)
    leased = "0" * 16
    for name in (".not-a-stage", f".{leased}-half"):
        (tmp_path / "stage" / name).mkdir(parents=True)
    (tmp_path / "stage" / f"{leased}.lock{LEASE}").touch()
    found = StageCache(tmp_path).get("stage", {}, fill)
    assert asked == [f"{found.name}.lock"]
    assert sorted(path.name for path in (tmp_path / "stage").glob(".*/")) == [f".{leased}-half", ".not-a-stage"]
