"""The table of measures of a sweep's page: values, their differences from unguided expansion, and what is said of them."""

from pathlib import Path

import numpy as np
import pytest
from scipy import stats
from sweeps import plain_job, study_job

from distdiff.report.sweep.page import write_sweep
from distdiff.report.sweep.settings import Setting, Sweep
from distdiff.report.sweep.tables import measures_table
from distdiff.tracking.sweep import SweptJobs

PAIRED = "In parentheses: the difference from unguided expansion"


def page_of(place: Path, command: str = "run") -> str:
    return write_sweep(command, place, SweptJobs(place).read()).read_text(encoding="utf-8")


def test_measures_stand_with_their_paired_differences_from_unguided_expansion(tmp_path: Path) -> None:
    """The half width is that of scipy's interval of the mean difference; without unguided values there is only an interval."""
    unguided = {("", 0): 10.0, ("", 1): 14.0, ("", 2): 12.0}
    values = {("", 0): 9.5, ("", 1): 13.2, ("", 2): 11.3}
    settings = tuple(
        Setting({"guidance.rho": str(rho)}, (), {"accuracy": unguided, "frechet_distance": found}, of_none, {})
        for rho, found, of_none in (
            (0, unguided, {"frechet_distance": unguided}),
            (1, values, {"frechet_distance": unguided}),
            (3, values, {}),
        )
    )
    table, about = measures_table(Sweep("run", tmp_path, (), settings, ("guidance.rho",)), [])
    differences = [-0.5, -0.8, -0.7]
    half = stats.t.interval(0.95, 2, np.mean(differences), stats.sem(differences))[1] - np.mean(differences)
    assert table[0] == ["guidance.rho", "frechet distance"]
    low, high = stats.t.interval(0.95, 2, np.mean(list(values.values())), stats.sem(list(values.values())))
    three = ["3", f"11.333 [{low:.3f}, {high:.3f}]"]
    assert table[1:] == [["0", "12.000 [7.032, 16.968]"], ["1", f"11.333 (-0.667 ± {half:.3f})"], three]
    assert f"{PAIRED}, paired by data seed, ± half of its interval. Each interval is by itself." in about


def test_small_values_keep_their_digits(tmp_path: Path) -> None:
    values, unguided = {("", 0): 4e-4, ("", 1): 6e-4}, {("", 0): 1e-4, ("", 1): 2e-4}
    setting = Setting({"guidance.rho": "1"}, (), {"accuracy": values, "kernel_distance": values}, {}, {})
    setting.unguided["kernel_distance"] = unguided
    table, _ = measures_table(Sweep("run", tmp_path, (), (setting,), ("guidance.rho",)), [])
    assert table[1] == ["1", "5.0e-04 (+3.5e-04 ± 6.4e-04)"]


@pytest.mark.parametrize("seeds", [1, 3])
def test_the_page_has_measures_of_unguided_expansion_and_of_each_strength(seeds: int, tmp_path: Path) -> None:
    for rho, distance in ((0.1, 5.0), (1, 4.5)):
        rows = {"none": [0.7, 0.72, 0.71][:seeds], "direct": [0.7, 0.71, 0.69][:seeds]}
        measures = {"frechet_distance": distance}
        study_job(tmp_path, f"guidance.rho={rho}", rows, measures=measures, of_none={"frechet_distance": 5.25})
    page = page_of(tmp_path)
    page = page[page.index("<h2>Measures</h2>") : page.index("<h2>Jobs</h2>")]
    unguided, weak, strong = (f"{value + np.arange(seeds).mean() / 100:.3f}" for value in (5.25, 5.0, 4.5))
    assert unguided in page
    assert f"{weak} (-0.250" in page
    assert f"{strong} (-0.750" in page
    assert f"{PAIRED}{'.' if seeds == 1 else ', paired by data seed'}" in page
    assert "± half" not in page  # each difference is the same in all seeds


def test_a_sweep_without_accuracies_has_one_table_of_values(tmp_path: Path) -> None:
    for seed in (0, 1):
        for features in ("judge", "guide"):
            plain_job(tmp_path, f"measure.features={features} seed={seed}", {"coverage": 0.5 + seed, "diversity": 3.0})
    page = page_of(tmp_path, "measure")
    assert "<h2>Measures</h2>" not in page
    assert "diversity" in page[page.index("<h2>Settings</h2>") :]
    assert PAIRED not in page
