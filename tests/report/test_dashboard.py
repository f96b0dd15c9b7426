"""What an offline W&B run of a study holds: few charts in sections, final values that are means, tables, pictures, lineage."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import pytest
import yaml
from conftest import ROOT, compose, small_overrides
from scipy import stats
from study_results import results
from wandb_runs import columns_of, exit_code, history, metrics_of, records, summary_of

from distdiff.commands.run import run as run_study
from distdiff.report.dashboard import final_values
from distdiff.tracking.sections import SECTIONS

ROWS = ["none", "direct"]


@pytest.fixture(scope="module")
def carry_out(
    pipeline_folder: Path, image_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Path]:
    """Carries out a study of two rows and two draws in a run directory of this name; all share a cache and images."""
    place = tmp_path_factory.mktemp("study")

    def carry_out(name: str) -> Path:
        data = ["dataset=imagefolder", f"dataset.root='{image_folder}'", "expansion.batch_size=3", "logger=wandb"]
        keys = [f"study.methods=[{','.join(ROWS)}]", "study.seeds=2", "study.training_seeds=2", "measure.judge_steps=2"]
        keys += ["train.steps=3", "generator.num_steps=3"]
        run_dir = place / name
        run_dir.mkdir()
        run_study(compose("run", [*small_overrides(pipeline_folder, place), *data, *keys]), run_dir)
        assert exit_code(run_dir) == 0
        return run_dir

    return carry_out


@pytest.fixture(scope="module")
def study(carry_out: Callable[[str], Path]) -> Path:
    return carry_out("run")


def lines_of(study: Path) -> list[dict[str, str]]:
    with open(study / "results.csv", newline="") as file:
        return list(csv.DictReader(file))


def charted(study: Path) -> set[str]:
    """The keys that W&B charts: those in the history that are not hidden."""
    hidden = {name for name, metric in metrics_of(study).items() if metric.options.hidden}
    begun = tuple(name.removesuffix("*") for name in hidden if name.endswith("*"))
    return {
        key
        for row in history(study, whole=False)
        for key in row
        if not key.startswith("_") and key not in hidden and not key.startswith(begun)
    }


def drawn(study: Path) -> set[str]:
    """The charts that W&B draws from tables."""
    updates = [u for record in records(study) if record.HasField("config") for u in record.config.update]
    return {u.nested_key[2] for u in updates if list(u.nested_key[:2]) == ["_wandb", "visualize"]}


def artifacts(study: Path) -> list[Any]:
    return [record.artifact for record in records(study) if record.HasField("artifact")]


def table(study: Path, name: str) -> list[dict[str, Any]]:
    """The rows of a table, which W&B stores as an artifact of its own."""
    entries = [entry for artifact in artifacts(study) for entry in artifact.manifest.contents]
    (path,) = (entry.local_path for entry in entries if entry.path == f"Result/{name}.table.json")
    found = json.loads(Path(path).read_text())
    return [dict(zip(found["columns"], row, strict=True)) for row in found["data"]]


def test_a_study_charts_at_most_fifteen_keys_in_sections_and_the_page_lists_them(study: Path) -> None:
    found = charted(study) | drawn(study)
    assert len(found) <= 15
    assert {key.partition("/")[0] for key in found} == set(SECTIONS)
    page = (ROOT / "conf/logger/README.md").read_text()
    assert {key for key in found if f"`{key}`" not in page} == set()
    metrics = metrics_of(study)
    assert (metrics["Expansion/*"].step_metric, metrics["Training/*"].step_metric) == (
        "Expansion/images",
        "Training/step",
    )


def test_the_curves_of_each_row_and_seed_are_kept_under_hidden_keys(study: Path) -> None:
    rows = history(study)
    for place in ("expand/none/seed1", "train/direct/seed0/training1"):
        name = "images" if place.startswith("expand") else "loss"
        assert any(f"rows/{place}/{name}" in row for row in rows), place
    accuracies = [row["rows/direct/accuracy"] for row in rows if "rows/direct/accuracy" in row]
    assert accuracies == [float(line["accuracy"]) for line in lines_of(study) if line["method"] == "direct"]


def test_sections_count_images_and_steps_over_all_rows_and_seeds(study: Path) -> None:
    rows = history(study)
    images = [row["Expansion/images"] for row in rows if "Expansion/images" in row]
    steps = [row["Training/step"] for row in rows if "Training/loss" in row]
    made = sum(len(set(line["expanded"] for line in lines_of(study) if line["method"] == name)) for name in ROWS)
    assert images == sorted(images)
    assert steps == sorted(steps)
    assert images[-1] == 12 * made


def test_final_values_are_means_over_draws_with_intervals(study: Path) -> None:
    """Oracle: scipy's t interval of the values in results.csv, each the mean over training seeds."""
    summary, lines = summary_of(study), lines_of(study)
    for method in ROWS:
        for name in ("accuracy", "macro_f1", "label_consistency"):
            of_row = [line for line in lines if line["method"] == method]
            values = [fmean(float(line[name]) for line in of_row if line["seed"] == seed) for seed in ("0", "1")]
            low, high = stats.t.interval(0.95, 1, loc=fmean(values), scale=stats.sem(values) or 1e-300)
            wanted = {"": fmean(values), "_std": stdev(values), "_low": low, "_high": high}
            for end, value in wanted.items():
                assert summary[f"{method}/{name}{end}"] == pytest.approx(value, abs=1e-9), (method, name, end)
                assert method != "direct" or summary[f"{name}{end}"] == summary[f"direct/{name}{end}"]


def test_the_summary_has_no_value_of_a_single_seed(study: Path) -> None:
    """A table or a picture has numbers too, such as its size."""
    scalars = {name for name, value in summary_of(study).items() if isinstance(value, (int, float))}
    charted = {name for name in scalars if name.startswith(SECTIONS) and name.count("/") == 1}
    assert charted <= {"Expansion/images", "Training/step", "Training/epoch"}
    assert not [name for name in scalars if name.startswith("rows/")]


def test_the_table_of_results_has_a_row_for_each_method_seed_and_training_seed(study: Path) -> None:
    rows, lines = table(study, "results_table"), lines_of(study)
    assert len(rows) == len(lines) == 2 * 2 * 2
    for row, line in zip(rows, lines, strict=True):
        assert (row["method"], row["seed"], row["training_seed"]) == (
            line["method"],
            int(line["seed"]),
            int(line["training_seed"]),
        )
        assert row["accuracy"] == float(line["accuracy"])


def test_the_table_of_samples_shows_source_image_class_energy_and_what_the_judge_sees(study: Path) -> None:
    rows = table(study, "samples_table")
    wanted = {"method", "class", "source", "generated", "energy", "predicted", "label_consistent", "nearest_real"}
    assert wanted <= rows[0].keys()
    assert {row["class"] for row in rows} == {"cat", "train"}
    for row in rows:
        assert all(row[name]["_type"] == "image-file" for name in ("source", "generated", "nearest_real"))
        assert row["label_consistent"] == (row["predicted"] == row["class"])
        assert row["nearest_distance"] > 0
        assert 0 < row["energy"] < 10
    staged = [
        entry.local_path for artifact in artifacts(study) for entry in artifact.manifest.contents if not entry.ref
    ]
    assert staged
    assert all(Path(path).is_file() and study in Path(path).parents for path in staged), "the run holds all it needs"


def test_pictures_have_captions(study: Path) -> None:
    captions = {
        key: value
        for row in history(study)
        for key, value in row.items()
        if key in ("Result/samples/captions", "Expansion/samples/captions")
    }
    assert captions["Result/samples/captions"][0].startswith("a column a class; rows: source, none, copy 0")
    assert captions["Expansion/samples/captions"] == ["row by row: cat, cat, cat"]


def test_the_configuration_is_flat_columns_and_a_file(study: Path) -> None:
    columns = {name: value for name, value in columns_of(study).items() if not name.startswith("_")}
    assert (columns["guidance.rho"], columns["rho"], columns["method"]) == (0.3, 0.3, "direct")
    assert columns["study.seeds"] == 2
    assert columns["dataset.name"] == "images0"
    assert not any(isinstance(value, dict) for value in columns.values())
    assert len(columns) < 300
    assert not any(name.startswith(("options", "logger.", "paths.")) or "_target_" in name for name in columns)
    (file,) = study.glob("wandb/offline-run-*/files/configuration.yaml")
    assert yaml.safe_load(file.read_text())["guidance"]["rho"] == 0.3


def test_the_run_is_named_by_dataset_row_strength_and_seed(study: Path) -> None:
    run = next(record.run for record in records(study) if record.HasField("run"))
    assert (run.display_name, run.job_type) == ("images0-direct-rho0.3-seed0", "run")


def test_expanded_datasets_are_outputs_that_refer_to_files_and_upload_nothing(study: Path) -> None:
    made = {line["expanded"] for line in lines_of(study)}
    found = [artifact for artifact in artifacts(study) if artifact.type == "dataset"]
    assert len(found) == len(made) == 4
    assert {json.loads(artifact.metadata)["directory"] for artifact in found} == made
    assert set(columns_of(study)["makes.dataset"]) == made
    for artifact in found:
        assert not artifact.use_after_commit
        assert all(entry.ref.startswith("file://") and not entry.local_path for entry in artifact.manifest.contents)
        assert len(artifact.manifest.contents) <= 3


def test_expanded_datasets_that_a_study_finds_are_its_inputs(study: Path, carry_out: Callable[[str], Path]) -> None:
    again = carry_out("again")
    found = [artifact for artifact in artifacts(again) if artifact.type == "dataset"]
    assert {json.loads(artifact.metadata)["directory"] for artifact in found} == {
        line["expanded"] for line in lines_of(study)
    }
    assert all(artifact.use_after_commit for artifact in found)
    assert set(columns_of(again)["uses.dataset"]) == {line["expanded"] for line in lines_of(study)}
    assert "makes.dataset" not in columns_of(again)
    assert {key.partition("/")[0] for key in charted(again) | drawn(again)} == {"Result"}


def test_values_of_single_seeds_stand_in_the_table_and_under_hidden_keys(study: Path) -> None:
    seeds = [row["rows/none/seed"] for row in history(study) if "rows/none/seed" in row]
    assert seeds == [0, 0, 1, 1]
    assert not [key for key in charted(study) if key.endswith("seed")]


def test_the_ends_of_a_difference_are_those_that_hold_for_all_differences_together() -> None:
    rows = {"original": [0.5, 0.6, 0.7], "none": [0.6, 0.8, 0.7], "direct": [0.7, 0.8, 0.95]}
    found = results(rows)
    values = final_values(found)
    for baseline in ("original", "none"):
        together = found.comparisons["direct", baseline].simultaneous
        ends = values[f"difference_to_{baseline}_low"], values[f"difference_to_{baseline}_high"]
        assert ends == (together.low, together.high)


def test_the_chosen_row_is_that_of_the_largest_factor_and_a_study_without_it_has_no_accuracy() -> None:
    rows = {"original": [0.5, 0.6], "direct@1": [0.6, 0.7], "direct@5": [0.7, 0.9]}
    assert final_values(results(rows, "direct@5"))["accuracy"] == pytest.approx(0.8)
    without = final_values(results({"original": [0.5, 0.6], "none": [0.6, 0.7]}))
    assert "accuracy" not in without
    assert "none/accuracy" in without
    assert not [name for name in without if name.startswith("difference_to")]


def test_a_single_draw_has_no_interval() -> None:
    values = final_values(results({"original": [0.5], "direct": [0.6]}))
    assert values["direct/accuracy"] == 0.6
    assert not [name for name in values if name.endswith(("_std", "_low", "_high"))]
