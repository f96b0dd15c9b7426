"""The study of all methods has every method, guidance and selection of the package, and its page says what was found."""

import pytest
from conftest import ROOT, compose
from scripts import study_script

from distdiff.commands.configuration import load_option
from distdiff.option_files.search_path import OURS

NOT_ROWS = {  # options that are no row of their own, or not one that can be had without weights
    "method": {"img2img", "augmentation"},
    "guidance": set(),
    "selection": {"all", "clip"},
}


@pytest.fixture(scope="module")
def methods():
    return study_script("methods")


def test_no_option_of_the_package_is_missing_in_the_study_of_all_methods(methods) -> None:
    config = compose("run", methods.keys_of("methods"))
    rows = set(config.study.methods)
    selected = {name.partition("+")[2] for name in rows if "+" in name}
    for group, left_out in NOT_ROWS.items():
        wanted = set(OURS.options(group)) - left_out
        assert wanted <= (selected if group == "selection" else rows), group
    assert config.study.rows.hard == ["guidance=none", "expansion.sources=hard"]
    assert (config.study.split, config.dataset.per_class, config.expansion.factor) == ("validation", 2, 5)


def test_each_start_of_the_control_has_its_twin_with_a_gradient_step(methods) -> None:
    config = compose("run", methods.keys_of("control"))
    rows = [set(keys) for keys in config.study.rows.values()]
    for epsilon in (0.05, 0.1, 0.2, 0.4, 0.8):
        for rho in (0, 10):
            same = {"guidance=transform", "guidance.init=random", f"guidance.epsilon={epsilon}", f"guidance.rho={rho}"}
            assert same in rows
    assert list(config.study.methods) == ["none"]


def test_rows_that_spread_out_are_each_one_change_from_a_row_of_all_methods_or_two_of_them_together(methods) -> None:
    config = compose("run", methods.keys_of("spread"))
    assert list(config.study.methods) == ["none", "feedback", "none+coverage"]
    rows = config.options.rows
    assert (rows.coverage_of_4.selection.ratio, rows.coverage_of_4.guidance.name) == (4, "none")
    assert (rows.feedback_coverage.guidance.rho, rows.feedback_coverage.selection.name) == (0.03, "coverage")
    assert [rows[f"feedback_{rho}"].guidance.rho for rho in (0.06, 0.1)] == [0.06, 0.1]
    assert rows.feedback_loss.guidance.criterion == "loss"
    assert rows.particles_coverage.guidance.name == "particles"
    assert [rows[f"none_{copies}_copies"].expansion.factor for copies in (10, 20)] == [10, 20]


def test_rows_of_the_ensemble_have_a_guide_of_five_members(methods) -> None:
    rows = compose("run", methods.keys_of("ensemble")).options.rows
    guides = {name: row.encoder.guide.members for name, row in rows.items()}
    assert all((members == 5) == name.startswith("five_") for name, members in guides.items())
    for name in ("direct_1", "feedback_coverage"):
        one, five = rows[name], rows[f"five_{name.removesuffix('_1')}"]
        assert (one.guidance, one.selection) == (five.guidance, five.selection)


def test_rows_of_the_second_round_differ_from_others_in_their_guide(methods) -> None:
    rows = compose("run", methods.keys_of("second_round")).options.rows
    assert {(row.encoder.guide.copies, row.encoder.guide.steps) for row in rows.values()} == {(5, 600)}
    assert (rows.second_feedback.guidance.rho, rows.second_consistency.selection.name) == (0.03, "consistency")


def test_rows_with_features_of_the_generator_differ_from_others_in_these(methods) -> None:
    config = compose("run", methods.keys_of("generator_features"))
    rows = config.options.rows
    assert list(config.study.methods) == ["none", "direct", "feedback", "none+coverage", "none+consistency"]
    assert {row.encoder.name for row in rows.values()} == {"generator"}
    assert [rows[f"generator_direct_{rho}"].guidance.rho for rho in (3, 10)] == [3, 10]
    assert rows.generator_coverage.selection.name == "coverage"


def test_each_row_of_the_ablation_changes_one_thing_in_the_strong_guidance(methods) -> None:
    config = compose("run", methods.keys_of("ablation"))
    assert (config.dataset.per_class, list(config.measure.features)) == (5, ["judge", "guide"])
    strong, *others = [list(keys) for keys in config.study.rows.values()]
    assert strong == ["guidance=direct", "guidance.rho=1"]
    for keys in others:
        added = [key for key in keys if key not in strong]
        assert len(added) == 1
        assert len(keys) == (2 if added[0].startswith("guidance.rho=") else 3)


@pytest.mark.parametrize("name", ["ink", "weak_generator", "shots_10", "shots_50"])
def test_studies_under_other_conditions_have_a_row_with_as_many_unguided_images_as_candidates(
    methods, name, monkeypatch
) -> None:
    monkeypatch.setattr("distdiff.data.config.check_root_is_there", lambda dataset: None)
    assets = str(ROOT / "distdiff/assets/tiny_digits")
    keys = [key.replace(f"{methods.FOLDER}/weak_generator/pipeline", assets) for key in methods.keys_of(name)]
    config = compose("run", keys)
    assert list(config.study.methods) == list(methods.CONDITION_ROWS)
    (more,) = config.study.rows.keys() - methods.CONDITION_MORE.keys()
    ratio = load_option("selection", "coverage").ratio
    assert config.options.rows[more].expansion.factor == ratio * config.expansion.factor
    assert config.dataset.prompt_template == "a photo of the digit {}."


def test_values_stand_in_the_features_that_guide_and_in_those_that_do_not(methods) -> None:
    def values(shift: float) -> dict:
        found = {"kernel_distance": 0.1 + shift, "diversity": 2 + shift, "label_consistency": 0.5 + shift}
        return {"training": {"values": found}}

    row = {"method": "strong", "accuracy": [0.7, 0.8], "measures": {"judge": values(0.25), "guide": values(0)}}
    assert list(methods.two_features_table([row]))[2:] == ["| `strong` | 0.750 | 0.750 | 0.1 | 0.35 | 2 | 2.25 |"]


def test_the_cost_of_an_image_is_compared_with_that_of_the_same_draw(methods) -> None:
    runs = [
        *({"method": "none", "seed": seed, "images_per_second": rate} for seed, rate in (("0", "10"), ("1", "5"))),
        *({"method": "modes", "seed": seed, "images_per_second": rate} for seed, rate in (("0", "5"), ("1", "2.5"))),
        {"method": "none+energy", "seed": "0", "images_per_second": "7"},
        {"method": "original", "seed": "0", "images_per_second": ""},
    ]
    assert list(methods.cost_table(runs))[2:] == ["| `none` | 0.150 | 1.00 |", "| `modes` | 0.300 | 2.00 |"]


def test_the_gradient_step_is_compared_in_the_same_draws_with_intervals_that_hold_together(methods) -> None:
    rows = [
        {"method": "epsilon_0.1_rho_0", "accuracy": [0.5, 0.6, 0.7]},
        {"method": "epsilon_0.1_rho_10", "accuracy": [0.6, 0.72, 0.78]},
    ]
    assert list(methods.twin_table(rows))[2:] == ["| 0.1 | 0.700 | 0.600 | +0.100 | [+0.050, +0.150] |"]
