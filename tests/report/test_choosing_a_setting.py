"""Which setting a sweep's page chooses, and how sure it says that is, against formulas that are not ours."""

import re
from pathlib import Path

import numpy as np
import pytest
from scipy import stats
from sweeps import failed_job, jobs_over, plain_job, study_job

from distdiff.report.sweep.choosing import choices
from distdiff.report.sweep.findings import details, headline, notes, without_choice
from distdiff.report.sweep.settings import Sweep

NONE = [0.70, 0.74, 0.66, 0.72, 0.68]
BETTER = [0.82, 0.85, 0.79, 0.84, 0.80]  # than NONE by 0.12 under every seed, but for 0.01
SHIFTS = np.array([0.0, 0.01, -0.01, 0.005, -0.005])


def sweep_of(place: Path, command: str = "run") -> Sweep:
    from distdiff.tracking.sweep import SweptJobs

    return Sweep.of(command, place, SweptJobs(place).read())


def said(sweep: Sweep) -> str:
    return " ".join(" ".join([headline(sweep, choice), *details(sweep, choice)]) for choice in choices(sweep))


def head(sweep: Sweep) -> str:
    """The headline of the sweep's only choice, which has two sentences at most."""
    (choice,) = choices(sweep)
    text = headline(sweep, choice)
    assert len(re.findall(r"[.!?](?=\s|$)", text)) <= 2
    return text


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
    assert re.fullmatch(
        r"Use ρ = 0\.3: it has the highest mean accuracy, 0\.820\. It is quite sure that guidance helps \(\+0\.120 \[.*\]\), "
        r"and no other strength is within one standard error of the best\.",
        head(sweep),
    )
    text = said(sweep)
    assert "paired over 5 data seeds. Their 95% intervals hold together for 3 strengths." in text
    assert "Measurably more accurate than unguided expansion: ρ = 0.3." in text
    assert "Measurably less accurate than unguided expansion: ρ = 10." in text


def test_where_no_strength_can_be_told_from_unguided_the_page_chooses_no_guidance_and_says_so(tmp_path: Path) -> None:
    strengths = {rho: np.array(NONE) + 3 * SHIFTS[::sign] for rho, sign in {0.3: 1, 1: -1}.items()}
    jobs_over(tmp_path, "guidance.rho", strengths, NONE)
    sweep = sweep_of(tmp_path)
    assert "No strength is distinguishable from unguided expansion" in said(sweep)
    assert "Measurably" not in said(sweep)
    assert head(sweep).startswith("Use unguided expansion (guidance=none): ")
    assert "This is not sure: " in head(sweep)
    assert "so this strength may help or harm." in head(sweep)


def test_unguided_expansion_is_chosen_where_it_is_better_than_every_strength(tmp_path: Path) -> None:
    for place, zero in ((tmp_path / "without", {}), (tmp_path / "with", {0: NONE})):
        jobs_over(place, "guidance.rho", zero | {0.1: np.array(NONE) - 0.03 + SHIFTS, 1: np.array(NONE) - 0.1}, NONE)
        sweep = sweep_of(place)
        (choice,) = choices(sweep)
        assert choice.chosen is choice.best
        assert choice.chosen.is_unguided
        assert "ρ = 0.1, the best strength with guidance, is measurably less accurate (-0.030 [" in head(sweep)
        assert "within one standard error of the best" not in head(sweep)
    assert head(sweep).startswith(
        "Use unguided expansion (guidance=none, the same as ρ = 0): it has the highest mean accuracy, 0.700."
    )


def test_unguided_expansion_within_one_standard_error_of_the_best_is_simpler_than_every_strength(
    tmp_path: Path,
) -> None:
    jobs_over(tmp_path, "guidance.rho", {0: NONE, 1: np.array(NONE) + 0.001 + SHIFTS}, NONE)
    text = head(sweep_of(tmp_path))
    assert text.startswith(
        "Use unguided expansion (guidance=none, the same as ρ = 0): its mean accuracy, 0.700, "
        "is within one standard error of the best, ρ = 1 (0.701)."
    )
    assert "ρ = 1, the best strength with guidance, differs from it by +0.001 [" in text
    jobs_over(tmp_path / "rows", "guidance.rho", {0: NONE, 1: np.array(NONE) + 0.001 + SHIFTS})
    assert head(sweep_of(tmp_path / "rows")).startswith("Use ρ = 0, which is no guidance: its mean accuracy, 0.700,")


def test_settings_that_do_not_share_their_unguided_row_have_one_each_as_a_candidate(tmp_path: Path) -> None:
    for factor in (2, 5):
        for rho in (0.1, 1):
            none = np.array(NONE) + factor / 100
            rows = {"none": none, "direct": none - rho / 10 + SHIFTS}
            study_job(tmp_path, f"guidance.rho={rho} expansion.factor={factor}", rows)
    sweep = sweep_of(tmp_path)
    (choice,) = choices(sweep)
    assert [each.given for each in choice.unguided] == [
        {"guidance.rho": "0", "expansion.factor": "2"},
        {"guidance.rho": "0", "expansion.factor": "5"},
    ]
    assert head(sweep).startswith("Use unguided expansion (guidance=none, expansion.factor=5): it has the highest")
    (both,) = {len(each.sharing) for each in choice.unguided}
    assert both == 2


def test_two_swept_keys_have_unguided_expansion_as_a_candidate_too(tmp_path: Path) -> None:
    for place, gain in ((tmp_path / "worse", -0.1), (tmp_path / "better", 0.1)):
        for rho in (0.1, 1):
            for period in (2, 5):
                rows = {"none": NONE, "direct": np.array(NONE) + gain + period / 1000 + SHIFTS * (period - 2)}
                study_job(place, f"guidance.rho={rho} guidance.period={period}", rows)
    assert head(sweep_of(tmp_path / "worse")).startswith("Use unguided expansion (guidance=none): it has the highest")
    (choice,) = choices(sweep_of(tmp_path / "worse"))
    assert choice.chosen.given == {"guidance.rho": "0", "guidance.period": "–"}
    (choice,) = choices(sweep_of(tmp_path / "better"))
    assert choice.chosen.given == {"guidance.rho": "0.1", "guidance.period": "5"}  # 2 is within, but no simpler
    assert len(choice.within) == 4
    assert "guidance.period keeps its value in the best setting, because only smaller strengths are simpler" in said(
        sweep_of(tmp_path / "better")
    )


def test_of_a_key_other_than_the_strength_the_best_value_is_chosen_and_those_near_it_are_named(tmp_path: Path) -> None:
    jobs_over(tmp_path, "train.steps", {10: NONE, 20: np.array(NONE) + 0.001 + SHIFTS, 30: np.array(NONE) - 0.1})
    sweep = sweep_of(tmp_path)
    assert head(sweep).startswith("Use train.steps=20: it has the highest mean accuracy, 0.701. This is not sure: ")
    assert "train.steps=10 is within one standard error of it too" in head(sweep)
    assert "no value of these keys is simpler than another" in said(sweep)


def test_with_one_data_seed_the_best_is_called_a_guess(tmp_path: Path) -> None:
    jobs_over(tmp_path, "guidance.rho", {0.3: [0.8], 1: [0.9]}, [0.7])
    sweep = sweep_of(tmp_path)
    assert head(sweep).startswith("ρ = 1 has the highest accuracy, 0.900, but this is a guess: with one data seed")
    assert any("one data seed, so there are no intervals" in line for line in notes(sweep, choices(sweep)))
    jobs_over(tmp_path / "none", "guidance.rho", {0.3: [0.8], 1: [0.9]}, [0.95])
    assert head(sweep_of(tmp_path / "none")).startswith(
        "Unguided expansion (guidance=none) has the highest accuracy, 0.950"
    )


def test_a_strength_of_zero_stands_for_unguided_where_studies_have_no_such_row(tmp_path: Path) -> None:
    jobs_over(tmp_path, "guidance.rho", {0: NONE, 1: BETTER})
    (choice,) = choices(sweep_of(tmp_path))
    expected = np.subtract(BETTER, NONE).mean()
    assert [gain.difference.mean for gain in choice.gains] == pytest.approx([expected])
    jobs_over(tmp_path / "without", "guidance.rho", {0.1: NONE, 1: BETTER})
    assert "the jobs have no unguided row ('study.methods=[none,chosen]' adds it)" in head(
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
    assert "For dataset.per_class=2: Use ρ = 1: it has" in said(sweep)
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
    assert any("they lack data seeds that the others have: ρ = 3" in line for line in notes(sweep, [choice]))


STOPPED = [  # the number of data seeds of each strength; the seeds that are compared; and the strengths that are left out
    ([5, 2, 2, 2], [0, 1], []),
    ([5, 5, 2], [0, 1, 2, 3, 4], [2]),
    ([5, 3], [0, 1, 2], []),
    ([5, 1], [0], []),
    ([5, 3, 1], [0, 1, 2], [2]),
    ([5, 5, 2, 2], [0, 1, 2, 3, 4], [2, 3]),
]


@pytest.mark.parametrize(("counts", "seeds", "left_out"), STOPPED)
def test_of_a_sweep_that_was_stopped_the_data_seeds_that_most_settings_have_are_compared(
    counts: list[int], seeds: list[int], left_out: list[int], tmp_path: Path
) -> None:
    jobs_over(tmp_path, "guidance.rho", {rho: np.array(NONE[:count]) + rho for rho, count in enumerate(counts)})
    sweep = sweep_of(tmp_path)
    (choice,) = choices(sweep)
    assert [seed for _, seed in choice.units] == seeds
    assert [each.number("guidance.rho") for each in choice.left_out] == left_out
    assert len(choice.compared) == len(counts) - len(left_out) >= 2
    told = any("further ones" in line for line in notes(sweep, [choice]))
    assert told == any(counts[int(each.given["guidance.rho"])] > len(seeds) for each in choice.compared)


def test_settings_that_each_lack_another_data_seed_are_compared_over_those_that_all_have(tmp_path: Path) -> None:
    for rho, seeds in ((0, (0, 1, 2)), (1, (1, 2, 3))):
        for seed in seeds:
            figures = {"accuracy": NONE[seed] + rho, "seed": seed, "dataset": "d", "split": "validation"}
            plain_job(tmp_path, f"guidance.rho={rho} seed={seed}", figures)
    (choice,) = choices(sweep_of(tmp_path, "train"))
    assert [seed for _, seed in choice.units] == [1, 2]
    for seed, rho in ((0, 0), (1, 1)):
        figures = {"accuracy": 0.5, "seed": seed, "dataset": "d", "split": "validation"}
        plain_job(tmp_path / "none", f"guidance.rho={rho} seed={seed}", figures)
    assert choices(sweep_of(tmp_path / "none", "train")) == []
    assert "No data seed is common to all settings" in without_choice(sweep_of(tmp_path / "none", "train"))


PREFIXES = ["{}", "+{}", "++{}"]


@pytest.mark.parametrize("prefix", PREFIXES)
def test_keys_are_those_that_hydra_reads_whatever_stands_before_them(prefix: str, tmp_path: Path) -> None:
    rho, seed, data = (prefix.format(key) for key in ("guidance.rho", "seed", "dataset.fold"))
    for strength, gain in ((0.1, 0.0), (1, 0.1)):
        for number in (0, 1):
            study_job(tmp_path, f"{rho}={strength} {seed}=0 {data}={number}", {"direct": [NONE[number] + gain]})
    sweep = sweep_of(tmp_path)
    assert (sweep.keys, sweep.repeats) == (("guidance.rho",), ("dataset.fold",))
    assert [len(setting.of("accuracy")) for setting in sweep.settings] == [2, 2]
    assert head(sweep).startswith("Use ρ = 1: ")


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda place: failed_job(place, "guidance.rho=1", "no"), "All jobs failed"),
        (lambda place: study_job(place, "guidance.rho=1", {"direct": NONE}), "Only one setting has results"),
        (
            lambda place: (
                jobs_over(place, "guidance.rho", {1: NONE}) and study_job(place, "guidance.rho=3", {"none": NONE})
            ),
            "Of 2 settings only ρ = 1 has an accuracy, so there is nothing to choose from.",
        ),
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
