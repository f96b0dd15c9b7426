"""The study of strengths chosen by agreement composes, and its page says what its tables hold."""

import csv
from pathlib import Path
from statistics import fmean

import pytest
from conftest import compose
from scripts import study_script


@pytest.fixture(scope="module")
def strengths():
    return study_script("strength_by_agreement")


@pytest.mark.parametrize("name", ["digits", "weak_generator", "ink", "signs_single", "signs_class"])
def test_a_condition_composes(strengths, name: str, pipeline_folder: Path, tmp_path: Path) -> None:
    for folder in ("study", "ink"):
        for part in ("train", "validation", "test"):
            for label in range(10):
                (tmp_path / folder / part / str(label)).mkdir(parents=True)
    for kind in ("single", "class", "weak_generator"):
        (tmp_path / kind).mkdir()
        (tmp_path / kind / "pipeline").symlink_to(pipeline_folder)
    keys = strengths.keys_of(name, dict.fromkeys(("<folder>", "<people>", "<pipelines>"), tmp_path))
    study = compose("run", [*keys, *strengths.STUDY])
    assert study.expansion.strength == strengths.CONDITIONS[name].default
    assert [row.expansion.strength for row in study.options.rows.values()] == list(strengths.STRENGTHS)
    assert {row.guidance.name for row in study.options.rows.values()} == {"none"}
    encoder = f"encoder={strengths.CONDITIONS[name].encoder}"
    choice = compose("expand", [*keys, encoder, *strengths.TUNE, "expansion.factor=1"])
    assert [row.expansion.strength for row in choice.options.rows.values()] == list(strengths.STRENGTHS)
    assert choice.guidance.name == "none"


def test_the_page_pairs_what_was_chosen_with_the_default_and_the_best(strengths, tmp_path: Path) -> None:
    accuracy = {"original": 0.5, **{row: 0.6 + place / 100 for place, row in enumerate(strengths.ROWS)}}
    with open(strengths.table_of(tmp_path, "digits"), "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["method", "seed", "accuracy"])
        writer.writerows([row, seed, value + seed / 1e5] for row, value in accuracy.items() for seed in strengths.SEEDS)
    with open(tmp_path / strengths.CHOICES, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(strengths.COLUMNS)
        chosen = ["0.5", "0.5", "0.95", "", "0.3"]
        writer.writerows(
            ["digits", seed, strength, 0.8, *[0.5] * 5] for seed, strength in zip(strengths.SEEDS, chosen, strict=True)
        )
        writer.writerow(["ink", 1003, "0.5", 0.8, *[0.5] * 5])  # not complete
    page = strengths.page(tmp_path)
    mean = fmean((0.61, 0.61, 0.64, 0.63, 0.60)) + fmean(strengths.SEEDS) / 1e5
    assert f"**{mean:.3f}** | 0.5, 0.5, 0.95, none (0.85), 0.3 |" in page
    assert "| digits, 2 images a class | 0.85 | -0.012 ± " in page
    assert "| 0.95 | -0.022 ± " in page
    assert "| digits, 2 images a class | 0.80 | 0.50" in page
    assert "the 2 intervals" in page
    assert "blue ink" not in page
