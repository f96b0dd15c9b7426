"""The table of finished runs: what is written is read again, also after a crash, beside other studies and processes."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from distdiff.errors import UserError
from distdiff.study.runs import RunResult
from distdiff.study.table import COLUMNS, RunsTable


def a_run(seed: int = 0, number: int = 0) -> RunResult:
    return RunResult(
        *(seed, 1 / 3 + seed, 20, number, 600, "small_cnn", "default", 0.1 + 0.2, None),
        {"macro_f1": 0.5 + seed},
        {"coverage": 0.1 + seed, 'a "quoted", one': 2.0},
        {"coverage": 'few images,\nso "biased"'},
        np.random.default_rng(seed).random(13 + seed) < 0.5,
    )


def same(first: RunResult | None, second: RunResult | None) -> bool:
    (one, other) = (asdict(run) for run in (first, second))
    return np.array_equal(one.pop("correct"), other.pop("correct")) and one == other


def found(path: Path, *fingerprints: str) -> list[RunResult | None]:
    return RunsTable(str(path)).find_all({"row": fingerprints})["row"]


def test_a_run_is_read_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "new" / "runs.csv"
    table = RunsTable(str(path))
    assert table.find_all({"none": ["f0"], "direct": []}) == {"none": [None], "direct": []}
    for seed in range(3):
        table.add(f"f{seed}", "none", a_run(seed))
    table.add("bare", "original", RunResult(5, 0.5, 20))
    assert all(map(same, found(path, "f0", "f1", "f2"), map(a_run, range(3))))
    assert asdict(found(path, "bare")[0]) == asdict(RunResult(5, 0.5, 20))
    assert path.read_text().splitlines()[0].split(",") == COLUMNS
    assert len(path.read_text().splitlines()) == 1 + 4  # a run is a line, whatever its remarks are


def test_a_run_that_is_there_is_not_added_again(tmp_path: Path) -> None:
    tables = [RunsTable(str(tmp_path / "runs.csv")) for _ in range(2)]
    for table in tables:
        table.add("f", "none", a_run())
    assert len((tmp_path / "runs.csv").read_text().splitlines()) == 2


def test_without_a_table_nothing_is_found_and_nothing_is_written(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    RunsTable(None).add("f", "none", a_run())
    assert RunsTable(None).find_all({"none": ["f"]}) == {"none": [None]}
    assert list(tmp_path.iterdir()) == []


def test_wherever_a_crash_cuts_a_line_off_the_other_runs_are_found_and_this_one_is_made_again(tmp_path: Path) -> None:
    path = tmp_path / "runs.csv"
    for seed in range(2):
        RunsTable(str(path)).add(f"f{seed}", "none", a_run(seed))
    whole = path.read_bytes()
    begins = whole.rstrip(b"\n").rindex(b"\n") + 1
    for end in [*range(begins, len(whole) - 1, 9), len(whole) - 2, len(whole) - 1]:
        path.write_bytes(whole[:end])
        first, second = found(path, "f0", "f1")
        assert same(first, a_run(0))
        assert second is None or end == len(whole) - 1, end  # of the last one only the line's end is missing
        RunsTable(str(path)).add("f1", "none", a_run(1))
        RunsTable(str(path)).add("f2", "none", a_run(2))
        assert all(map(same, found(path, "f0", "f1", "f2"), map(a_run, range(3)))), end


def test_a_crash_in_the_first_line_leaves_a_table_that_can_be_used(tmp_path: Path) -> None:
    path = tmp_path / "runs.csv"
    for kept in ("", ",".join(COLUMNS)[:30], ",".join(COLUMNS)):
        path.write_text(kept)
        RunsTable(str(path)).add("f", "none", a_run())
        assert same(found(path, "f")[0], a_run()), kept
        path.unlink()


def test_several_processes_may_add_runs_at_once(tmp_path: Path) -> None:
    path = tmp_path / "runs.csv"

    def add(number: int) -> None:
        RunsTable(str(path)).add(f"f{number % 20}", "none", a_run(number % 20))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(add, range(40)))
    assert all(map(same, found(path, *(f"f{number}" for number in range(20))), map(a_run, range(20))))
    assert len(path.read_text().splitlines()) == 1 + 20


def test_damaged_lines_and_spreadsheets_line_ends_do_no_harm(tmp_path: Path) -> None:
    path = tmp_path / "runs.csv"
    RunsTable(str(path)).add("f0", "none", a_run())
    path.write_bytes(
        path.read_bytes().replace(b"\n", b"\r\n") + b'f1,none,x\n"open\nf2' + b"," * (len(COLUMNS) - 1) + b"\n"
    )
    RunsTable(str(path)).add("f3", "none", a_run(3))
    assert same(found(path, "f0")[0], a_run(0))
    assert found(path, "f1") == [None]
    assert same(found(path, "f3")[0], a_run(3))


@pytest.mark.parametrize("content", ["a,b\n1,2\n", "no table at all", "\x00\xff"])
def test_a_file_that_is_no_table_is_refused_and_left_alone(tmp_path: Path, content: str) -> None:
    path = tmp_path / "mine.csv"
    path.write_text(content)
    with pytest.raises(UserError, match=r"^study\.table=.*mine\.csv is not allowed: the file is there and is no table"):
        RunsTable(str(path))
    assert path.read_text() == content
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(UserError, match=r"it is a folder"):
        RunsTable(str(tmp_path / "folder.csv"))


def test_a_place_where_nothing_can_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"^study\.table=.*: cannot write there"):
        RunsTable(str(tmp_path / "file" / "runs.csv"))


def test_a_directory_of_images_that_is_gone_is_not_told(tmp_path: Path) -> None:
    run, path = a_run(), tmp_path / "runs.csv"
    run.expanded = str(tmp_path / "expanded")
    RunsTable(str(path)).add("f", "none", run)
    assert found(path, "f")[0].expanded is None
    (tmp_path / "expanded").mkdir()
    (tmp_path / "expanded" / "metadata.parquet").touch()
    assert found(path, "f")[0].expanded == run.expanded
