"""A multirun whose jobs had W&B runs ends with a run of the sweep, in their group; nothing of it can change the jobs' end."""

import json
from pathlib import Path
from typing import Any

import pytest
from hydra.core.hydra_config import HydraConfig
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


def test_a_chosen_row_with_the_best_settings_is_compared_with_unguided_images_that_have_them_too(
    tmp_path: Path,
) -> None:
    place = tmp_path / "multirun/2026"
    for rho in (1, 3):
        rows = {"none": [0.4, 0.42], "none_best": [0.6, 0.62], "direct_best": [0.7, 0.7 + rho / 100]}
        study_job(place, f"guidance.rho={rho} seed=1000", rows, chosen="direct_best")
    conclude(tracked(place))
    lines = lines_of(place, "accuracy_by_setting")
    assert [value for _, value in lines["unguided"]] == pytest.approx([0.61] * 2)
    assert dict(lines["accuracy"]) == pytest.approx({1: 0.705, 3: 0.715})


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


def run_of(place: Path) -> Any:
    return next(record.run for record in records(place) if record.HasField("run"))


def with_ids(place: Path, **files: str) -> Path:
    """The jobs in `place` have had W&B runs, and have left files of these contents: `ours`, `hydra`."""
    jobs_over(place, "guidance.rho", RHOS)
    for job in SweptJobs(place).read():
        directory = Path(job.directory)
        keep_id(directory, f"run{job.number}")
        (directory / ".hydra").mkdir()
        for name, path in {"ours": directory / "config.yaml", "hydra": directory / ".hydra/config.yaml"}.items():
            if name in files:
                path.write_text(files[name])
    return place


HYDRAS = "logger: {project: mine, mode: offline, group: '${hydra:job.name}', settings: {}}\n"
OURS = "# The resolved configuration of this run of distdiff.\nlogger: {project: mine, mode: offline, group: run}\n"


@pytest.mark.parametrize(
    ("files", "project", "group"),
    [
        ({"ours": OURS, "hydra": HYDRAS}, "mine", "run"),  # a key of `logger` refers to what Hydra knows during the job
        ({"ours": OURS}, "mine", "run"),  # hydra.output_subdir=null
        ({"hydra": HYDRAS}, "mine", "2026"),
        ({"ours": "logger: {project: not-ours, mode: online}\n", "hydra": HYDRAS}, "mine", "2026"),  # a user's own file
        ({"hydra": "[1, 2]"}, "of-variable", "2026"),
        ({"hydra": "logger: null"}, "of-variable", "2026"),
        ({"hydra": "logger: {mode: '${hydra:x}', project: mine}"}, "mine", "2026"),
        ({"hydra": "a: ["}, "of-variable", "2026"),
        ({}, "of-variable", "2026"),
    ],
)
def test_the_run_of_a_sweep_has_its_jobs_mode_and_is_offline_where_that_cannot_be_read(
    files: dict[str, str], project: str, group: str, monkeypatch, tmp_path: Path, capsys
) -> None:
    place = with_ids(tmp_path / "multirun/2026", **files)
    # A test before may have run a job, which would then answer ${hydra:...}.
    monkeypatch.setattr(HydraConfig.instance(), "cfg", None)
    monkeypatch.setenv("WANDB_MODE", "online")
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    monkeypatch.setenv("WANDB_PROJECT", "of-variable")
    assert exit_code(conclude(place)) == 0
    run = run_of(place)
    assert (run.job_type, run.project, run.run_group) == ("sweep", project, group)
    said = capsys.readouterr().out
    assert ("the run of the sweep stays offline: " in said) == ("ours" not in files or "not-ours" in files["ours"])
    assert said.count("\n") <= 2
    assert "W&B      offline, to upload it: wandb sync " in said


def test_where_unguided_expansion_is_chosen_the_summary_says_so(tmp_path: Path) -> None:
    place = tmp_path / "multirun/2026"
    jobs_over(place, "guidance.rho", RHOS, none=[0.90, 0.92])
    summary = summary_of(conclude(tracked(place)))
    assert (summary["chosen/guidance"], summary["chosen/guidance.rho"]) == ("none", 0)
    assert summary["accuracy"] == pytest.approx(0.91)
