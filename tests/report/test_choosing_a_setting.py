"""Which setting a sweep's page chooses, and how sure it says that is, against formulas that are not ours."""

from pathlib import Path

import numpy as np
import pytest
from scipy import stats
from sweeps import failed_job, jobs_over, plain_job, study_job

from distdiff.report.sweep.choosing import choices
from distdiff.report.sweep.findings import headline, notes, without_choice
from distdiff.report.sweep.settings import Sweep

NONE = [0.70, 0.74, 0.66, 0.72, 0.68]
BETTER = [0.82, 0.85, 0.79, 0.84, 0.80]  # than NONE by 0.12 under every seed, but for 0.01
SHIFTS = np.array([0.0, 0.01, -0.01, 0.005, -0.005])


def sweep_of(place: Path, command: str = "run") -> Sweep:
    from distdiff.tracking.sweep import SweptJobs

    return Sweep.of(command, place, SweptJobs(place).read())


def said(sweep: Sweep) -> str:
    return " ".join(line for choice in choices(sweep) for line in headline(sweep, choice))


def test_the_smallest_strength_within_one_paired_standard_error_of_the_best_is_chosen(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    for number in range(40):
        place = tmp_path / str(number)
        of_seeds = random.normal(0, 0.05, 5)  # shared by all strengths, so that only paired errors are small
        strengths = [0, 0.1, 0.3, 1, 3, 10]
        accuracies = {rho: 0.8 + of_seeds + random.normal(0, 0.01, 5) for rho in strengths}
        for rho in random.permutation(strengths):
            study_job(place, f"guidance.rho={rho:g}", {"direct": list(accuracies[rho])})
        best = max(strengths, key=lambda rho: accuracies[rho].mean())
        within = [rho for rho in strengths if _paired_error(accuracies[best] - accuracies[rho])]
        (choice,) = choices(sweep_of(place))
        assert choice.best.number("guidance.rho") == best
        assert [each.number("guidance.rho") for each in choice.within] == within
        assert choice.chosen.number("guidance.rho") == min(within)


def _paired_error(lost: np.ndarray) -> bool:
    return lost.mean() <= stats.sem(lost)


def test_differences_to_unguided_hold_together_for_all_strengths(tmp_path: Path) -> None:
    strengths = {rho: np.array(NONE) + gain + SHIFTS for rho, gain in {0: 0, 0.3: 0.12, 1: 0.01, 10: -0.2}.items()}
    jobs_over(tmp_path, "guidance.rho", strengths, NONE)
    sweep = sweep_of(tmp_path)
    (choice,) = choices(sweep)
    assert [gain.setting.number("guidance.rho") for gain in choice.gains] == [
        0.3,
        1,
        10,
    ]  # without ρ = 0, which guides nothing
    for gain in choice.gains:
        tested = stats.ttest_rel(strengths[gain.setting.number("guidance.rho")], NONE)
        expected = tested.confidence_interval(1 - 0.05 / 3)
        assert (gain.difference.low, gain.difference.high) == pytest.approx((expected.low, expected.high))
    text = said(sweep)
    assert "Use ρ = 0.3. It has the highest mean accuracy, 0.820." in text
    assert "ρ = 0.3 against unguided expansion: +0.120 accuracy [" in text
    assert "hold together for 3 strengths, paired over 5 data seeds" in text
    assert "Measurably more accurate than unguided expansion: ρ = 0.3." in text
    assert "Measurably less accurate than unguided expansion: ρ = 10." in text


def test_where_no_strength_can_be_told_from_unguided_the_page_says_so(tmp_path: Path) -> None:
    strengths = {rho: np.array(NONE) + 3 * SHIFTS[::sign] for rho, sign in {0.3: 1, 1: -1}.items()}
    jobs_over(tmp_path, "guidance.rho", strengths, NONE)
    text = said(sweep_of(tmp_path))
    assert "No strength is distinguishable from unguided expansion" in text
    assert "Unguided expansion is itself within one standard error of the best" in text
    assert "Measurably" not in text


def test_where_the_rule_chooses_no_guidance_the_page_says_so(tmp_path: Path) -> None:
    jobs_over(tmp_path, "guidance.rho", {0: NONE, 1: np.array(NONE) + 0.001 + SHIFTS}, NONE)
    text = said(sweep_of(tmp_path))
    assert text.startswith(
        "Use ρ = 0, that is, no guidance: it is the smallest value within one standard error of the best"
    )
    assert "ρ = 1 against unguided expansion: +0.001" in text


def test_with_one_data_seed_the_best_is_called_a_guess(tmp_path: Path) -> None:
    jobs_over(tmp_path, "guidance.rho", {0.3: [0.8], 1: [0.9]}, [0.7])
    sweep = sweep_of(tmp_path)
    text = said(sweep)
    assert "ρ = 1 has the highest mean accuracy, 0.900. With one data seed this is a guess" in text
    assert "Use ρ" not in text
    assert any("one data seed, so there are no intervals" in line for line in notes(sweep, choices(sweep)))


def test_a_strength_of_zero_stands_for_unguided_where_studies_have_no_such_row(tmp_path: Path) -> None:
    jobs_over(tmp_path, "guidance.rho", {0: NONE, 1: BETTER})
    (choice,) = choices(sweep_of(tmp_path))
    expected = np.subtract(BETTER, NONE).mean()
    assert [gain.difference.mean for gain in choice.gains] == pytest.approx([expected])
    jobs_over(tmp_path / "without", "guidance.rho", {0.1: NONE, 1: BETTER})
    assert "the jobs have no unguided row. Add it: 'study.methods=[none,chosen]'" in said(
        sweep_of(tmp_path / "without")
    )


def test_settings_on_other_data_are_not_compared(tmp_path: Path) -> None:
    for size, level in ((2, 0.0), (10, 0.1)):
        for rho, gain in ((0.3, 0.0), (1, 0.05)):
            study_job(
                tmp_path, f"dataset.per_class={size} guidance.rho={rho}", {"direct": np.array(NONE) + level + gain}
            )
    sweep = sweep_of(tmp_path)
    assert [(each.problem, each.best.given["guidance.rho"]) for each in choices(sweep)] == [
        ("dataset.per_class=2", "1"),
        ("dataset.per_class=10", "1"),
    ]
    assert "For dataset.per_class=2: Use ρ = 1." in said(sweep)
    jobs_over(tmp_path / "sizes", "dataset.per_class", {2: NONE, 10: BETTER})
    assert choices(sweep_of(tmp_path / "sizes")) == []
    assert "on different data" in without_choice(sweep_of(tmp_path / "sizes"))


def test_jobs_that_differ_in_seed_or_fold_alone_repeat_one_setting(tmp_path: Path) -> None:
    for rho, gain in ((0.3, 0.0), (1, 0.1)):
        for seed in (0, 1, 2):
            study_job(tmp_path, f"guidance.rho={rho} dataset.fold={seed}", {"direct": [NONE[seed] + gain]})
    sweep = sweep_of(tmp_path)
    assert [len(setting.of("accuracy")) for setting in sweep.settings] == [3, 3]
    assert sweep.keys == ("guidance.rho",)
    assert sweep.repeats == ("dataset.fold",)
    assert any("Folds share training images" in line for line in notes(sweep, choices(sweep)))
    for size in (0.1, 0.2):
        for seed in (0, 1):
            figures = {"accuracy": size + seed / 10, "seed": seed, "dataset": "d", "split": "validation"}
            plain_job(tmp_path / "train", f"optimizer.learning_rate={size} seed={seed}", figures)
    trained = sweep_of(tmp_path / "train", "train")
    assert [list(setting.of("accuracy").values()) for setting in trained.settings] == [
        pytest.approx([0.1, 0.2]),
        pytest.approx([0.2, 0.3]),
    ]


def test_the_same_data_seed_in_several_jobs_counts_once(tmp_path: Path) -> None:
    for _ in range(3):
        study_job(tmp_path, "guidance.rho=1", {"direct": NONE})
    study_job(tmp_path, "guidance.rho=1.0", {"direct": NONE})
    study_job(tmp_path, "guidance.rho=3", {"direct": BETTER})
    one, other = sweep_of(tmp_path).settings
    assert list(one.of("accuracy").values()) == pytest.approx(NONE)
    assert (len(one.jobs), len(other.jobs)) == (4, 1)


def test_a_setting_that_lacks_data_seeds_is_left_out_and_named(tmp_path: Path) -> None:
    jobs_over(tmp_path, "guidance.rho", {0.1: NONE, 1: BETTER, 3: [0.99, 0.99]})
    sweep = sweep_of(tmp_path)
    (choice,) = choices(sweep)
    assert choice.best.given["guidance.rho"] == "1"
    assert any("data seeds are not those of the others: ρ = 3" in line for line in notes(sweep, [choice]))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda place: failed_job(place, "guidance.rho=1", "no"), "All jobs failed"),
        (lambda place: study_job(place, "guidance.rho=1", {"direct": NONE}), "Only one setting has results"),
        (lambda place: study_job(place, "guidance.rho=1", {"none": NONE}), "have no accuracy"),
        (lambda place: plain_job(place, "guidance.rho=1", {"accuracy": float("nan"), "x": 1.0}), "have no accuracy"),
    ],
)
def test_where_nothing_can_be_chosen_the_page_says_why(make, words: str, tmp_path: Path) -> None:
    make(tmp_path)
    sweep = sweep_of(tmp_path)
    assert choices(sweep) == []
    assert words in without_choice(sweep)


def test_jobs_that_share_a_directory_keep_the_figures_that_each_had(tmp_path: Path) -> None:
    from dataclasses import replace

    jobs = jobs_over(tmp_path, "guidance.rho", {0.1: NONE, 1: BETTER})
    shared = [replace(job, directory=jobs[0].directory) for job in jobs]
    sweep = Sweep.of("run", tmp_path, shared)
    assert [setting.mean("accuracy") for setting in sweep.settings] == pytest.approx([np.mean(NONE), np.mean(BETTER)])
    assert any("only means are known" in line for line in notes(sweep, []))
