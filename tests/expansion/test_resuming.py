"""An expansion that is interrupted, killed or shared among processes ends as if one process had made it at once."""

import json
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import forked
import numpy as np
import pyarrow.parquet
import pytest
from small_expansion import contents, pixels, small_jobs

from distdiff.errors import Stopped, UserError
from distdiff.expansion.job import ExpansionJob
from distdiff.expansion.writer import ExpandedWriter
from distdiff.store.journal import append_rows, read_journals
from distdiff.store.reading import read_expanded
from distdiff.store.shares import Share, working_on


@pytest.fixture
def job(small_run: list[str], image_folder: Path, tmp_path: Path) -> Callable[..., ExpansionJob]:
    return small_jobs(small_run, image_folder, tmp_path)


def test_resume_writes_identical_files_and_leaves_finished_ones_alone(job, tmp_path: Path) -> None:
    made = job()
    made.run("test")
    before = contents(made.path)
    pixels_before = pixels(made.path)
    times = {name: (made.path / name).stat().st_mtime_ns for name in before}
    lost = sorted(before)[::3]
    for name in lost:
        (made.path / name).unlink()
    job().run("test")
    assert pixels(made.path).keys() == pixels_before.keys()
    for name, image in pixels(made.path).items():
        assert np.abs(image - pixels_before[name]).max() <= 1
    kept = [name for name in before if name not in lost]
    assert {name: (made.path / name).stat().st_mtime_ns for name in kept} == {name: times[name] for name in kept}
    assert json.loads((made.path / "manifest.json").read_text())["complete"]


def test_an_interrupted_expansion_goes_on_from_its_journal(job, monkeypatch, capsys) -> None:
    whole = job("expansion.batch_size=2")
    calls = []

    write = ExpandedWriter.write_on_batch_end

    def die_after_two(self, *arguments):
        if len(calls) == 2:
            raise KeyboardInterrupt
        calls.append(1)
        write(self, *arguments)

    monkeypatch.setattr(ExpandedWriter, "write_on_batch_end", die_after_two)
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        whole.run("test")
    finished = contents(whole.path)
    assert len(finished) == 4
    with pytest.raises(UserError, match="is not complete"):
        read_expanded(whole.path)
    monkeypatch.setattr(ExpandedWriter, "write_on_batch_end", write)
    assert "going on" not in capsys.readouterr().out
    job("expansion.batch_size=2").run("test")
    assert f"going on: 4 of {2 * len(whole.sources)} images are there\n" in capsys.readouterr().out
    assert len(read_expanded(whole.path)) == 2 * len(whole.sources)
    assert {name: data for name, data in contents(whole.path).items() if name in finished} == finished
    assert not list(whole.path.glob(".*"))


def test_an_expansion_killed_twice_ends_as_if_it_had_not_been(
    small_run: list[str], image_folder: Path, job, tmp_path: Path
) -> None:
    """Short form of experiments/studies/kill_and_resume.py: SIGKILL as soon as some images are there."""
    whole = job("expansion.factor=6", f"expansion.output_dir={tmp_path}/whole")
    whole.run("test")
    target = tmp_path / "killed"
    command = [
        sys.executable,
        "experiments/expand.py",
        *small_run,
        "dataset=imagefolder",
        f"dataset.root={image_folder}",
    ]
    command += [f"expansion.output_dir={target}", "expansion.factor=6", "expansion.batch_size=1", "guidance=direct"]
    written: dict[str, int] = {}
    for images in (3, 10, 10**9):
        process = forked.Started(command)
        while process.poll() is None and len(list(target.glob("[!.]*/*.png"))) < images:
            time.sleep(0.002)
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        assert process.wait() == (0 if images == 10**9 else -signal.SIGKILL)
        now = {path.name: path.stat().st_mtime_ns for path in target.glob("[!.]*/*.png")}
        assert written.items() <= now.items()  # nothing that was there is written again
        written = now
    files = [sorted(path.relative_to(folder) for path in folder.rglob("*")) for folder in (whole.path, target)]
    assert files[0] == files[1]
    one, two = pixels(whole.path), pixels(target)
    assert max(np.abs(one[name] - two[name]).max() for name in one) <= 1


def test_a_torn_journal_line_costs_only_its_own_image(tmp_path: Path) -> None:
    journal = tmp_path / ".journal-0-of-1.jsonl"
    append_rows(journal, [{"file_name": "a.png"}])
    with open(journal, "a") as file:
        file.write('{"file_name": "b.p')
    append_rows(journal, [{"file_name": "c.png"}])
    assert [row["file_name"] for row in read_journals(tmp_path)] == ["a.png", "c.png"]


def test_a_signal_stops_between_batches_and_the_same_command_goes_on(job, monkeypatch, tmp_path: Path) -> None:
    whole = job("expansion.batch_size=2", f"expansion.output_dir={tmp_path}/whole")
    whole.run("test")
    for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT):
        folder = f"expansion.output_dir={tmp_path}/{number}"
        stopped, write = job("expansion.batch_size=2", folder), ExpandedWriter.write_on_batch_end

        def signalled(self, *arguments, number=number, write=write):
            os.kill(os.getpid(), number)
            write(self, *arguments)

        with monkeypatch.context() as patch:
            patch.setattr(ExpandedWriter, "write_on_batch_end", signalled)
            with pytest.raises(Stopped) as caught:
                stopped.run("test")
        assert caught.value.exit_status == 128 + number
        assert len(contents(stopped.path)) == 2  # the batch in progress, whole
        job("expansion.batch_size=2", folder).run("test")
        assert contents(stopped.path) == contents(whole.path)


def test_two_splits_at_once_make_what_one_process_makes(
    small_run: list[str], image_folder: Path, job, tmp_path: Path
) -> None:
    whole = job(f"expansion.output_dir={tmp_path}/whole")
    whole.run("test")
    command = [
        sys.executable,
        "experiments/expand.py",
        *small_run,
        "dataset=imagefolder",
        f"dataset.root={image_folder}",
    ]
    command += [f"expansion.output_dir={tmp_path}/splits", "expansion.total_split=2", "guidance=direct"]
    processes = [forked.Started([*command, f"expansion.split={split}"]) for split in (0, 1)]
    for process in processes:
        _, errors = process.communicate(timeout=180)
        assert process.returncode == 0, errors
    splits = tmp_path / "splits"
    assert json.loads((splits / "manifest.json").read_text())["complete"]
    assert not list(splits.glob(".*"))
    one, two = pixels(whole.path), pixels(splits)
    assert one.keys() == two.keys()
    assert max(np.abs(one[name] - two[name]).max() for name in one) <= 1
    tables = [pyarrow.parquet.read_table(folder / "metadata.parquet") for folder in (whole.path, splits)]
    for column in ("file_name", "label", "class_name", "source", "copy", "seed", "strength"):
        assert tables[0][column] == tables[1][column]


def test_a_split_that_is_taken_is_refused_and_the_others_are_not(job) -> None:
    made = job("expansion.split=0", "expansion.total_split=2")
    with working_on(made.path, Share(0, 2)):
        with pytest.raises(UserError, match=r"another process \(\d+ on .*, since .*\) is at work on split 0 of 2"):
            made.run("test")
        with pytest.raises(UserError, match="in shares of another size"):
            job().run("test")
        lacking = job("expansion.split=1", "expansion.total_split=2").run("test")
    assert lacking == len(made.sources)
    assert made.run("test") == 0
    assert json.loads((made.path / "manifest.json").read_text())["complete"]


def test_a_larger_factor_continues_and_a_smaller_one_reads_a_part(job) -> None:
    made = job("expansion.factor=1")
    made.run("test")
    first = contents(made.path)
    larger = job("expansion.factor=3")
    assert larger.fingerprint == made.fingerprint
    larger.run("test")
    assert first.items() <= contents(made.path).items()
    assert len(read_expanded(made.path)) == 3 * len(made.sources)
    assert len(read_expanded(made.path, contents=job("expansion.factor=2").plan)) == 2 * len(made.sources)
