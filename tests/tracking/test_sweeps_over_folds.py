"""A multirun over folds ends with the mean and the standard deviation over them."""

import csv
from pathlib import Path

import numpy as np
import pytest

from distdiff.tracking.sweep import SweptJob, conclude


def swept(place: Path, *given: tuple[str, dict[str, float] | None]) -> list[dict[str, str]]:
    """The rows of `sweep.csv` after jobs with these overrides and figures; a job without figures has failed."""
    jobs = [
        SweptJob(
            number, str(place), f"{place}/{number}", tuple(overrides.split()), None if found else "no", found or {}
        )
        for number, (overrides, found) in enumerate(given)
    ]
    conclude(jobs)
    with open(place / "sweep.csv", newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_folds_are_averaged_whatever_hydra_takes_before_a_key(tmp_path: Path, capsys) -> None:
    given = [
        (f"+dataset.num_folds=2 ++dataset.fold={fold} ++guidance.rho=1", {"accuracy": fold / 4}) for fold in (1, 2)
    ]
    rows = swept(tmp_path, *given)
    assert [(row["job"], row["dataset.fold"]) for row in rows] == [
        ("0", "1"),
        ("1", "2"),
        ("mean", "1,2"),
        ("std", "1,2"),
    ]
    assert float(rows[2]["accuracy"]) == pytest.approx(0.375)


def test_a_key_is_what_hydra_reads_and_the_last_override_of_it_counts() -> None:
    typed = (
        "seed=1",
        "++guidance.rho=1",
        "guidance.rho=2",
        "+guidance@other.place=direct",
        "+notes=",
        "x=a=b",
        "~seed",
    )
    job = SweptJob(0, "", "", (*typed, "key with spaces=1"))
    assert job.given() == {
        "guidance.rho": "2",
        "guidance@other.place": "direct",
        "notes": "",
        "x": "a=b",
        "key with spaces": "1",
    }


def test_jobs_that_differ_in_the_fold_alone_are_averaged(tmp_path: Path, capsys) -> None:
    accuracies = np.random.default_rng(0).uniform(size=(2, 5))
    rows = swept(
        tmp_path,
        *(
            (f"dataset.num_folds=5 dataset.fold={fold} guidance.rho={rho}", {"accuracy": accuracies[number, fold]})
            for fold in range(5)
            for number, rho in enumerate((1, 10))
        ),
    )
    assert [row["job"] for row in rows] == [*map(str, range(10)), "mean", "std", "mean", "std"]
    for number, rho in enumerate(("1", "10")):
        mean, std = rows[10 + 2 * number : 12 + 2 * number]
        assert {mean["guidance.rho"], std["guidance.rho"]} == {rho}
        assert {mean["dataset.fold"], std["dataset.fold"]} == {"0,1,2,3,4"}
        assert float(mean["accuracy"]) == pytest.approx(accuracies[number].mean(), abs=1e-12)
        assert float(std["accuracy"]) == pytest.approx(accuracies[number].std(ddof=1), abs=1e-12)
        assert mean["error"] == ""
    table = [line.split() for line in capsys.readouterr().out.splitlines()]
    expected = f"{accuracies[1].mean():.4g} ± {accuracies[1].std(ddof=1):.2g}".split()
    assert ["mean", "5", "folds", "10", *expected] in table


def test_a_failed_fold_is_left_out_and_said(tmp_path: Path, capsys) -> None:
    rows = swept(
        tmp_path,
        ("dataset.fold=0", {"accuracy": 0.5, "extra": 1.0}),
        ("dataset.fold=1", None),
        ("dataset.fold=2", {"accuracy": 0.7}),
    )
    mean, std = rows[3:]
    assert (mean["dataset.fold"], float(mean["accuracy"]), mean["extra"]) == ("0,2", pytest.approx(0.6), "")
    assert float(std["accuracy"]) == pytest.approx(np.std([0.5, 0.7], ddof=1))
    assert mean["error"] == "1 of 3 folds failed"
    assert "a mean leaves folds out: 1 of 3 folds failed" in capsys.readouterr().out


@pytest.mark.parametrize(
    "overrides",
    [
        ["seed=1", "seed=2"],
        ["dataset.fold=0 seed=1", "dataset.fold=1 seed=2"],
        ["dataset.fold=3 seed=1", "dataset.fold=3 seed=2"],
    ],
)
def test_other_sweeps_have_no_mean(overrides: list[str], tmp_path: Path, capsys) -> None:
    rows = swept(tmp_path, *((given, {"accuracy": 0.5}) for given in overrides))
    assert [row["job"] for row in rows] == ["0", "1"]
    assert " mean " not in capsys.readouterr().out
