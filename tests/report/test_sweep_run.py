"""A multirun whose jobs had W&B runs ends with a run of the sweep, in their group; nothing of it can change the jobs' end."""

import json
from pathlib import Path
from typing import Any

import pytest
from sweeps import failed_job, jobs_over, study_job
from wandb_runs import alone_with_wandb, columns_of, exit_code, records, summary_of  # noqa: F401 (a fixture)

from distdiff.report.sweep.settings import Sweep
from distdiff.report.sweep.tracking import SweepRun
from distdiff.tracking.run_ids import keep_id
from distdiff.tracking.sweep import SweptJobs

pytestmark = pytest.mark.usefixtures("alone_with_wandb")
RHOS = {"0.1": [0.70, 0.72], "1": [0.80, 0.84], "10": [0.60, 0.62]}


def tracked(place: Path) -> Path:
    """The jobs in `place` have had W&B runs, with these settings."""
    for job in SweptJobs(place).read():
        directory = Path(job.directory)
        keep_id(directory, f"run{job.number}")
        (directory / ".hydra").mkdir()
        (directory / ".hydra/config.yaml").write_text(
            "logger: {project: mine, group: null, tags: [a], mode: offline}\n"
        )
    return place


def conclude(place: Path) -> Path:
    SweepRun().conclude("run", place)
    return place


def lines_of(place: Path, key: str) -> dict[str, list[tuple[float, float]]]:
    """The lines of a chart, by name."""
    found: dict[str, list[tuple[float, float]]] = {}
    for row in table(place, key):
        found.setdefault(row["lineKey"], []).append((row["step"], row["lineVal"]))
    return found


def table(place: Path, key: str) -> list[dict[str, Any]]:
    (path,) = place.glob(f"wandb/offline-run-*/files/media/table/Result/{key}_table_*.table.json")
    found = json.loads(path.read_text())
    return [dict(zip(found["columns"], row, strict=True)) for row in found["data"]]


def test_a_sweep_over_a_number_is_charted_with_intervals_and_the_unguided_level(tmp_path: Path, capsys) -> None:
    place = tmp_path / "multirun/2026"
    jobs_over(place, "guidance.rho", RHOS, none=[0.66, 0.68])
    failed_job(place, "guidance.rho=100 seed=1000", "out of memory")
    conclude(tracked(place))
    assert exit_code(place) == 0
    run = next(record.run for record in records(place) if record.HasField("run"))
    assert (run.job_type, run.run_group, run.project, list(run.tags)) == ("sweep", "2026", "mine", ["a"])
    assert run.display_name == "sweep-run-2026"
    lines = lines_of(place, "accuracy_by_setting")
    assert dict(lines["accuracy"]) == pytest.approx({0.1: 0.71, 1: 0.82, 10: 0.61})
    assert [rho for rho, _ in lines["unguided"]] == [0.1, 1, 10]
    assert [value for _, value in lines["unguided"]] == pytest.approx([0.67] * 3)
    low, high = lines["low end of the 95 % interval"], lines["high end of the 95 % interval"]
    half = 12.706 * 0.02  # of Student's t with one degree of freedom, times the standard error
    assert (low[1][1], high[1][1]) == pytest.approx((0.82 - half, 0.82 + half), abs=1e-4)
    jobs = table(place, "jobs")
    assert [(job["guidance.rho"], job["run"], job["error"]) for job in jobs[2:]] == [
        ("10", "run2", None),
        ("100", "run3", "out of memory"),
    ]
    summary = summary_of(place)
    assert (summary["jobs"], summary["failed_jobs"], summary["chosen/guidance.rho"]) == (4, 1, 1.0)
    assert summary["accuracy"] == pytest.approx(0.82)
    assert columns_of(place)["swept"] == ["guidance.rho"]
    assert capsys.readouterr().out.startswith("W&B      offline, to upload it: wandb sync ")


def test_a_sweep_over_names_has_bars_and_one_over_two_numbers_a_line_for_each_of_the_second(tmp_path: Path) -> None:
    names, numbers = tmp_path / "multirun/names", tmp_path / "multirun/numbers"
    jobs_over(names, "guidance", {"direct": [0.7, 0.8], "tfg": [0.6, 0.7]})
    rows = table(conclude(tracked(names)), "accuracy_by_setting")
    assert [(row["setting"], row["accuracy"]) for row in rows] == [
        ("direct", pytest.approx(0.75)),
        ("tfg", pytest.approx(0.65)),
    ]
    for rho, strength in ((1, 0.5), (3, 0.5), (1, 0.9), (3, 0.9)):
        study_job(numbers, f"guidance.rho={rho} expansion.strength={strength}", {"direct": [0.7, rho / 10]})
    lines = lines_of(conclude(tracked(numbers)), "accuracy_by_setting")
    assert {name: [x for x, _ in points] for name, points in lines.items()} == {
        "expansion.strength=0.5": [1, 3],
        "expansion.strength=0.9": [1, 3],
    }


def test_jobs_without_runs_of_wandb_make_none(tmp_path: Path, capsys) -> None:
    place = tmp_path / "multirun/2026"
    jobs_over(place, "guidance.rho", RHOS)
    conclude(place)
    assert not (place / "wandb").exists()
    assert capsys.readouterr().out == ""


def test_a_failure_is_one_line(monkeypatch, tmp_path: Path, capsys) -> None:
    place = tmp_path / "multirun/2026"
    jobs_over(place, "guidance.rho", RHOS)

    def broken(*_: object) -> None:
        raise RuntimeError("no answer\nand more")

    monkeypatch.setattr(Sweep, "of", broken)
    conclude(tracked(place))
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if "could not be made" in line] == [
        "W&B      the run of the sweep could not be made: no answer"
    ]


def test_jobs_whose_configuration_was_not_kept_get_a_run_with_the_settings_of_wandb(monkeypatch, tmp_path) -> None:
    place = tmp_path / "multirun/2026"
    jobs_over(place, "guidance.rho", RHOS)
    for job in SweptJobs(place).read():
        keep_id(Path(job.directory), f"run{job.number}")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_PROJECT", "of-variable")
    assert exit_code(conclude(place)) == 0
    run = next(record.run for record in records(place) if record.HasField("run"))
    assert (run.job_type, run.run_group, run.project) == ("sweep", "2026", "of-variable")
