"""What a study concludes: which rows are compared, in which words, and that a single seed settles nothing."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats
from study_results import results

from distdiff.report.table import accuracy_rows, comparison_rows, measure_rows
from distdiff.study.comparisons import pairs
from distdiff.study.results import StudyResults

FIVE = ("original", "randaugment", "none", "transform_official", "direct")
NUMBERS = {name: list(np.random.default_rng(place).normal(0.8, 0.02, 4)) for place, name in enumerate(FIVE)}


def test_the_default_table_shows_seven_differences_and_each_pair_once() -> None:
    found = results(NUMBERS)
    assert len(found.comparisons) == 7
    assert len({frozenset(pair) for pair in found.comparisons}) == 7
    cells = [cell for row in accuracy_rows(found)[1:] for cell in row if "±" in cell]
    assert len(cells) == 5 + 7
    assert len(comparison_rows(found)) == 1 + 7
    assert pairs([], ["none"]) == []


def test_intervals_are_bonferronis_and_p_values_are_those_of_scipy_in_holms_way() -> None:
    found = results(NUMBERS)
    p_values = {}
    for (method, baseline), comparison in found.comparisons.items():
        test = stats.ttest_rel(NUMBERS[method], NUMBERS[baseline])
        together, alone = test.confidence_interval(1 - 0.05 / 7), test.confidence_interval(0.95)
        assert comparison.simultaneous.low == pytest.approx(together.low)
        assert comparison.simultaneous.high == pytest.approx(together.high)
        assert (comparison.difference.low, comparison.difference.high) == pytest.approx((alone.low, alone.high))
        p_values[method, baseline] = test.pvalue
        assert comparison.as_dict()["simultaneous"]["low"] == comparison.simultaneous.low
    first, second = sorted(p_values, key=p_values.get)[:2]
    assert found.comparisons[first].holm == pytest.approx(min(1, 7 * p_values[first]))
    assert found.comparisons[second].holm == pytest.approx(min(1, max(7 * p_values[first], 6 * p_values[second])))


def test_the_headline_says_whether_it_helped_by_the_simultaneous_interval() -> None:
    """The difference of 0.01 is settled by itself, but not together with six others."""
    base = np.array([0.5, 0.6, 0.55])
    guided = base + np.array([0.31, 0.313, 0.307])
    rows = {name: base + place / 50 for place, name in enumerate(("original", "randaugment", "transform_official"))}
    rows |= {"none": base + 0.3, "direct": guided}
    found = results({name: list(values) for name, values in rows.items()})
    guidance = found.comparisons["direct", "none"]
    assert guidance.difference.settled
    assert not guidance.settled
    expansion, line = found.headline()
    assert expansion.startswith("Expansion with 'direct' helped: +0.310 [+0.29")
    assert line.startswith("Guidance 'direct' did not measurably help here: +0.010 [-")
    assert line.endswith("(3 draws of the training images; 95 % simultaneous over 7 differences).")
    worse = results({"original": [0.5, 0.5, 0.5], "none": [0.8, 0.81, 0.79], "direct": [0.7, 0.705, 0.69]})
    assert worse.headline()[1].startswith("Guidance 'direct' hurt: -0.10")


def test_a_single_data_seed_has_neither_a_spread_nor_an_interval_whatever_its_training_seeds() -> None:
    for accuracies in ([0.5], [[0.5, 0.6, 0.7]]):
        found = results(
            {"original": accuracies, "none": [0.8], "direct": [0.9]}
            if len(accuracies) > 1
            else {"original": accuracies, "none": accuracies, "direct": accuracies}
        )
        text = json.dumps([accuracy_rows(found), found.captions(), found.headline()], ensure_ascii=False)
        assert "±" not in text
        assert "[+" not in text
        assert '"p"' not in text
        assert comparison_rows(found) == []
        row = found.as_dict()["rows"][1]
        assert row["accuracy_std"] is None
        assert (row["difference_to_original"]["low"], row["difference_to_original"]["bootstrap"]) == (None, None)
        assert "so nothing is settled" in found.headline()[0]
        assert "1 draw of the training images" in found.captions()[0]


def trained(steps: dict[str, int], **more: Any) -> StudyResults:
    """A study whose rows were trained for these numbers of steps."""
    found = results({name: [0.5, 0.6] for name in steps}, **more)
    for row in found.rows:
        for run in row.runs:
            run.steps, run.classifier, run.augmentation = steps[row.method], "small_cnn", "default"
    return found


def test_captions_say_how_long_each_row_trains() -> None:
    def told(*numbers: int, **more: Any) -> str:
        return trained(dict(zip(("original", "none"), numbers, strict=True)), **more).captions()[-1]

    assert told(200, 200) == "Every row trains for 200 steps."
    assert told(200, 200, may_end_early=True) == "Every row trains for at most 200 steps."
    assert told(60, 1660) == "Rows train for different numbers of steps: original 60, none 1,660."
    each = {"original": 3, "none": 3}
    assert told(60, 660, epochs=each) == (
        "Every row trains for 3 epochs of its own images. Steps: original 60, none 660."
    )
    assert told(60, 200, epochs={"original": 3}) == "Rows train for different numbers of steps: original 60, none 200."
    assert told(60, 660, epochs={"none": 1}, searched=("original",), may_end_early=True) == (
        "Every other row trains for at most 1 epoch of its own images. Steps: none 660."
    )


def test_accuracies_of_weights_that_test_images_chose_are_called_too_high() -> None:
    rows = {"original": [0.5, 0.6], "none": [0.6, 0.7]}
    assert results(rows, "none").headline()[0].startswith("Expansion with")
    every = results(rows, "none", best_on_test=("original", "none")).headline()[0]
    assert every.startswith("Accuracies are those of the best check on these very images")
    one = results(rows, "none", best_on_test=("none",)).headline()[0]
    assert one.startswith("Accuracies of none are those of the best check on these very images")
    assert one.endswith("too high an estimate for new images.")


def test_training_seeds_are_averaged_under_each_data_seed() -> None:
    nested = {"original": [[0.5, 0.6, 0.7], [0.6, 0.6, 0.9]], "none": [[0.7, 0.8, 0.9], [0.8, 0.8, 0.8]]}
    found = results(nested, chosen="none")
    (original, none) = found.as_dict()["rows"]
    assert original["accuracy"] == pytest.approx([0.6, 0.7])
    assert original["accuracy_std"] == pytest.approx(np.std([0.6, 0.7], ddof=1))
    runs = [(run["seed"], run["training_seed"], run["accuracy"]) for run in none["runs"]]
    assert runs == [(seed, number, nested["none"][seed][number]) for seed in (0, 1) for number in (0, 1, 2)]
    assert none["difference_to_original"]["mean"] == pytest.approx(0.15)
    assert found.design == "2 draws of the training images × 3 training seeds"
    assert results(nested, are_drawn=False).design == "2 data seeds with the same training images × 3 training seeds"


def test_further_scores_of_a_test_stand_beside_the_accuracy_in_every_file(tmp_path: Path) -> None:
    """Their mean is over data seeds, each the mean over its training seeds."""
    found = results({"original": [[0.5, 0.6], [0.7, 0.8]], "none": [[0.5, 0.5], [0.5, 0.5]]}, "none")
    for run, score in zip(found.rows[0].runs, (0.1, 0.2, 0.5, 0.6), strict=True):
        run.scores = {"macro_f1": score}
    found.write(tmp_path)
    original, none = json.loads((tmp_path / "results.json").read_text())["rows"]
    assert original["macro_f1"] == pytest.approx(0.35)
    assert none["macro_f1"] is None
    assert [run["macro_f1"] for run in original["runs"]] == [0.1, 0.2, 0.5, 0.6]
    with open(tmp_path / "results.csv", newline="") as file:
        lines = list(csv.DictReader(file))
    assert [(line["method"], line["seed"], line["training_seed"]) for line in lines[:3]] == [
        ("original", "0", "0"),
        ("original", "0", "1"),
        ("original", "1", "0"),
    ]
    assert [line["macro_f1"] for line in lines[2:5]] == ["0.5", "0.6", ""]


def validated(*accuracies: float) -> StudyResults:
    """A study whose rows without generated images have these accuracies on validation images."""
    names = ("original", "original_best", "randaugment_best")
    found = results(
        dict(zip(names, ([0.9, 0.95], [0.6, 0.65], [0.7, 0.75]), strict=True)) | {"none": [0.8, 0.8]}, "none"
    )
    for row, accuracy in zip(found.rows, accuracies, strict=False):
        for run in row.runs:
            run.validation_accuracy = accuracy
    return found


@pytest.mark.parametrize("best", range(3))
def test_expansion_is_compared_with_the_best_baseline_on_validation_images_not_on_test_images(best: int) -> None:
    name = ("original", "original_best", "randaugment_best")[best]
    found = validated(*(0.5 + 0.1 * (place == best) for place in range(3)))
    assert found.baselines == [name, "none"]
    (line,) = found.headline()
    assert (
        f"accuracy against {name}, on validation images the best of original, original_best, randaugment_best" in line
    )
    assert f"difference_to_{name}" in found.summary()
    assert "difference_to_original" in found.summary()  # as dashboards know it
    assert f"vs {name}" in accuracy_rows(found)[0]


def trained_as(found: StudyResults, **networks: str) -> StudyResults:
    """The same results, of rows that were trained with `small_cnn` or the network that is named, and validated by it."""
    for row in found.rows:
        for run in row.runs:
            run.classifier = networks.get(row.base, "small_cnn")
            run.validation_accuracy = run.accuracy
    return found


FAIR = {
    "original": [0.50, 0.52, 0.51],
    "original_best": [0.80, 0.82, 0.81],
    "none": [0.75, 0.77, 0.77],
    "direct": [0.76, 0.77, 0.77],
}
FAIRER = FAIR | {"none_best": [0.90, 0.92, 0.92], "direct_best": [0.95, 0.96, 0.97]}


def fairer(*names: str, chosen: str = "direct", **more: Any) -> StudyResults:
    """Results of the rows `names`; without names, of all. Those of `original_best` are of another network."""
    rows = {name: FAIRER[name] for name in names or FAIRER}
    return trained_as(results(rows, chosen, **more), original_best="small_resnet")


def test_rows_that_train_as_is_best_for_them_are_compared_with_each_other() -> None:
    found = fairer()
    against_unguided = {method: baseline for method, baseline in found.comparisons if baseline.startswith("none")}
    assert against_unguided == {"original": "none", "direct": "none", "none_best": "none", "direct_best": "none_best"}
    assert found.comparisons["none_best", "original_best"].mean == pytest.approx(np.mean(FAIRER["none_best"]) - 0.81)
    assert any(
        line.startswith("vs none: other rows that end in _best are compared with none_best")
        for line in found.captions()
    )
    expansion, guidance = found.headline()
    assert expansion.startswith("Expansion with 'direct_best' helped: +0.150 [")
    assert guidance.startswith("Guidance 'direct_best' helped: +0.047 [+0.002")
    assert "accuracy against unguided expansion (none_best) (3 draws" in guidance


def test_only_one_row_with_the_best_settings_is_said_to_be_on_unequal_terms() -> None:
    expansion, terms, guidance = fairer("original", "original_best", "none", "direct").headline()
    assert expansion.startswith("Expansion with 'direct' hurt: -0.04")
    assert terms == (
        "Network, augmentation and steps were chosen for original_best on validation images, but not for direct: "
        "add direct_best to study.methods to compare them on equal terms."
    )
    assert guidance.startswith("Guidance 'direct' did not measurably help here: +0.003 [")
    expansion, terms, guidance, more = trained_as(
        results({name: FAIRER[name] for name in ("original", "none", "direct_best")}, "direct_best"),
        direct_best="other",
    ).headline()
    assert expansion.startswith("Expansion with 'direct_best' helped: +0.45")
    assert "chosen for direct_best on validation images, but not for original: add original_best to" in terms
    assert guidance.startswith("Guidance 'direct_best' helped: +0.197")
    assert "not for none: add none_best to study.methods" in more


def test_a_choice_that_made_no_difference_is_not_called_unequal() -> None:
    found = trained_as(results(FAIR))
    assert len(found.headline()) == 2
    for run in found.row("original_best").runs:
        run.steps = 600
    assert len(found.headline()) == 2  # the steps of the others are not known
    for name in ("none", "direct"):
        for run in found.row(name).runs:
            run.steps = 200
    assert found.headline()[1].startswith("Network, augmentation and steps were chosen for original_best")
    found.searched = tuple(FAIR)
    assert len(found.headline()) == 2  # study.tune_steps: the others have the steps that are best for them
    found.row("original_best").runs[2].augmentation, found.row("direct").runs[2].augmentation = "affine", "default"
    assert found.headline()[1].startswith("Network and augmentation were chosen for original_best")


def test_rows_with_the_best_settings_are_enough_for_a_study() -> None:
    found = fairer("original_best", "none_best", "direct_best", chosen="direct_best")
    assert found.baselines == ["original_best", "none_best"]
    assert len(found.comparisons) == 3
    assert [line.partition(":")[0] for line in found.headline()] == [
        "Expansion with 'direct_best' helped",
        "Guidance 'direct_best' helped",
    ]
    assert "the original images alone, trained on as is best for them" in found.headline()[0]
    assert not any("vs none:" in line for line in found.captions())
    (line,) = fairer("original_best", "none_best", chosen="none").headline()
    assert line.startswith("Expansion with 'none_best' helped: +0.103 [")


def test_rows_that_are_trained_alike_are_compared_where_the_plain_baseline_is_the_best() -> None:
    found = fairer(chosen="none")
    for run in found.row("original").runs:
        run.validation_accuracy = 1.0
    assert found.baselines == ["original", "none"]
    assert found.headline()[0].startswith("Expansion with 'none' helped: +0.25")


def test_factors_keep_rows_with_the_best_settings_apart() -> None:
    rows = {"original_best": FAIR["original_best"]} | {
        f"{name}@{factor}": FAIRER[name] for name in ("none", "none_best", "direct", "direct_best") for factor in (1, 5)
    }
    found = trained_as(results(rows, "direct@5"), original_best="small_resnet")
    assert ("direct_best@1", "none_best@1") in found.comparisons
    assert ("none_best@5", "none@5") in found.comparisons
    assert not [
        pair
        for pair in found.comparisons
        if pair[0].startswith("direct") and pair[0][-1] != pair[1][-1] and "@" in pair[1]
    ]
    expansion, guidance = found.headline()
    assert expansion.startswith("Expansion with 'direct_best@5' helped")
    assert guidance.startswith("Guidance 'direct_best@5' did not measurably help here: +0.047 [")
    assert found.repeats(found.row("none_best@5"))


def test_images_that_two_rows_train_on_are_shown_once() -> None:
    found = results({"original": [0.5] * 2, "randaugment": [0.6] * 2, "randaugment_best": [0.7] * 2})
    found.measures = {"coverage": True}
    for row in found.rows[1:]:
        for run in row.runs:
            run.measures = {"coverage": 0.1 * run.seed}
    assert [row[0] for row in measure_rows(found)] == ["method", "randaugment"]
    found.rows[2].runs[0].measures = {"coverage": 0.9}  # an option of one's own that is called so
    assert [row[0] for row in measure_rows(found)] == ["method", "randaugment", "randaugment_best"]


def test_the_bootstrap_is_simultaneous_too_and_uses_the_images_where_they_are_known() -> None:
    """Accuracies that never differ between seeds leave only the images to vary."""
    rng = np.random.default_rng(0)
    found = results({"original": [0.5] * 3, "none": [0.6] * 3}, "none")
    assert found.comparisons["none", "original"].bootstrap is None  # nothing varies
    found = results({"original": [0.5] * 3, "none": [0.6] * 3}, "none")
    for row in found.rows:
        correct = rng.permutation(np.arange(100) < 100 * row.runs[0].accuracy)
        for run in row.runs:
            run.correct = correct
    first, second = (row.runs[0].correct.astype(float) for row in found.rows)
    error = (second - first).std() / 10
    interval = found.comparisons["none", "original"].bootstrap
    assert (interval.low, interval.high) == pytest.approx((0.1 - 1.96 * error, 0.1 + 1.96 * error), abs=0.015)
