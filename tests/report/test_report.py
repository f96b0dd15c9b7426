"""What the report on a study shows, from results alone: conclusions, limits, tables, figures; and that it stays usable."""

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import compose_once
from html_pages import Page
from matplotlib.backends.backend_agg import FigureCanvasAgg
from omegaconf import OmegaConf
from study_results import results

from distdiff.report.dots import MOST, accuracy_figure, dashed_row, difference_figure, groups, shown_rows
from distdiff.report.fidelity import MOST_NAMES, axes_of, fidelity_caption, fidelity_figure, points
from distdiff.report.html import figures, limits, write_report
from distdiff.report.samples import Samples
from distdiff.report.table import comparison_rows, print_results
from distdiff.study.results import StudyResults
from distdiff.study.statistics import mean_interval

FIVE = ("original", "randaugment", "none", "transform_official", "direct")
NUMBERS = {name: list(np.random.default_rng(place).normal(0.8, 0.02, 4)) for place, name in enumerate(FIVE)}


def measured(rows: dict[str, list[float]], *names: str, **more: Any) -> StudyResults:
    """A study whose rows, except the first, have these measures."""
    rng, found = np.random.default_rng(0), results(rows, **more)
    found.measures = dict.fromkeys(names, True)
    for row in found.rows[1:]:
        for run in row.runs:
            run.measures = {name: float(rng.random()) for name in names}
    return found


def written(found: StudyResults, place: Path, samples: Samples | None = None) -> str:
    write_report(found, compose_once("run", []), samples, place / "report.html")
    return (place / "report.html").read_text(encoding="utf-8")


def test_a_report_begins_with_the_conclusion_and_the_limits_and_loads_nothing(tmp_path: Path) -> None:
    found = measured(NUMBERS, "frechet_distance", "coverage")
    text = written(found, tmp_path)
    page = Page(text)
    assert page.addresses() == []
    places = [page.text.index(words) for words in (found.headline()[0], found.headline()[1], limits(found)[0])]
    assert places == sorted(places)
    assert text.index("<h2>Limits") < text.index("<svg") < text.index("<table")
    assert len(page.all("svg")) == 3
    assert all(svg["role"] == "img" and svg["aria-labelledby"] and svg["aria-describedby"] for svg in page.all("svg"))
    titles = {"svg": page.text.count("Accuracy of each row on test images")}
    assert titles == {"svg": 1}
    assert page.all("table") == [{"class": "sortable"}] * 4  # accuracies, differences, measures, times
    labels = [div["aria-label"] for div in page.all("div") if "scroll" in div.get("class", "")]
    assert len(labels) == len(set(labels)) == 3 + 4


@pytest.mark.parametrize(
    ("features", "words"),
    [(None, "of a classifier"), (["guide", "judge"], "that guide"), (["pixels"], "in the pixels")],
)
def test_a_report_says_in_which_features_its_measures_are(features, words: str, tmp_path: Path) -> None:
    config = compose_once("run", [])
    if features is not None:
        OmegaConf.update(config, "measure.features", features, force_add=True)
    write_report(measured(NUMBERS, "coverage"), config, None, tmp_path / "report.html")
    text = " ".join((tmp_path / "report.html").read_text().split())
    assert f"{words}" in text[text.index("Metrics are computed in") :].split(".")[0]


def test_all_measures_of_many_rows_have_room_on_a_console(capsys: pytest.CaptureFixture[str]) -> None:
    names = ("kernel_distance", "frechet_distance", "label_consistency", "coverage", "diversity", "near_copies")
    rows = {name: [0.5, 0.6] for name in ("original", "none", "transform_official", "epsilon_0.05_rho_10")}
    found = measured(rows, *names, "energy_before", "energy_after", "images_per_second")
    for run in found.row("none").runs:
        run.remarks = {"frechet_distance": "from few images"}
    print_results(found)
    table = capsys.readouterr().out.split("expanded images against the real ones")[1]
    assert "…" not in table
    for name in (*names, *rows, "images_per_second"):
        assert name in table or all(word in table for word in name.split("_")), name


def test_limits_say_how_small_a_difference_the_study_can_tell_from_chance() -> None:
    found = results(NUMBERS)
    halves = [(each.simultaneous.high - each.simultaneous.low) / 2 for each in found.comparisons.values()]
    assert f"reach {min(halves):.3f} to {max(halves):.3f} to either side" in limits(found)[1]
    assert "From 4 draws of the training images" in limits(found)[1]
    single = results({"original": [0.5], "none": [0.6]}, "none")
    assert limits(single)[1].startswith("From 1 draw of the training images: nothing is known of how much")


def test_limits_name_whatever_makes_the_figures_worth_less() -> None:
    assert len(limits(results(NUMBERS, judge_accuracy=0.9))) == 2
    doubtful = results(NUMBERS, judge_accuracy=0.3)
    assert "The judge labels only 30.0% of the test images rightly" in limits(doubtful)[2]
    chosen = results(NUMBERS)
    chosen.split = "validation"
    assert limits(chosen)[2].startswith("The accuracies are on validation images.")


def test_what_the_command_warned_of_is_among_the_limits(tmp_path: Path) -> None:
    words = "generator=tiny_digits draws nothing but digits: choose another, such as <b>sd15</b>"
    write_report(results(NUMBERS), compose_once("run", []), None, tmp_path / "report.html", [words])
    text = Page((tmp_path / "report.html").read_text()).text
    assert text.index("Limits") < text.index(f"Warning: {words}.") < text.index("Accuracy of each row")


def test_names_in_results_are_text_in_every_table_and_figure(tmp_path: Path) -> None:
    nasty = "<b>x</b> $\\frac{ & \"y' \x07"
    rows = {"original": [0.5, 0.6], "none": [0.6, 0.7], nasty: [0.7, 0.7], f"{nasty}_best": [0.6, 0.8]}
    found = measured(rows, "frechet_distance", "diversity", chosen=nasty)
    found.dataset, found.timing = nasty, {f"expand {nasty}": 1.0}
    page = Page(written(found, tmp_path))
    assert page.all("b") == []
    assert page.text.count("<b>x</b> $\\frac{ & \"y'") > 10
    assert page.addresses() == []


def ticks(axes) -> list[str]:
    return [text.get_text() for text in axes.get_yticklabels()]


def test_accuracies_are_dots_with_intervals_and_no_line_joins_two_rows() -> None:
    found = results(NUMBERS)
    (axes,) = accuracy_figure(found).axes
    assert ticks(axes) == list(FIVE)
    seeds = [line for line in axes.lines if len(line.get_xdata()) == 4]
    assert [list(line.get_xdata()) for line in seeds] == [NUMBERS[name] for name in FIVE]
    assert {line.get_linestyle() for line in seeds} == {"None"}
    for place, container in enumerate(axes.containers):
        (bar,) = container.lines[2]
        interval = mean_interval(NUMBERS[FIVE[place]])
        assert bar.get_segments()[0] == pytest.approx(np.array([[interval.low, place], [interval.high, place]]))
    (axes,) = accuracy_figure(results({"original": [0.5], "none": [0.6]}, "none")).axes
    assert [container.lines[2] for container in axes.containers] == [(), ()]


def test_differences_are_forest_plots_with_simultaneous_intervals_one_for_each_baseline() -> None:
    rows = NUMBERS | {"direct": list(np.add(NUMBERS["original"], [0.1, 0.11, 0.1, 0.09]))}
    found = results(rows)
    shown = [(each.method, each.baseline) for of_baseline in groups(found).values() for each in of_baseline]
    assert shown == list(found.comparisons)
    panels = difference_figure(found).axes
    assert [axes.get_title(loc="left") for axes in panels] == ["minus original", "minus none"]
    for axes, comparisons in zip(panels, groups(found).values(), strict=True):
        assert ticks(axes) == [each.method for each in comparisons]
        assert any(list(line.get_xdata()) == [0, 0] for line in axes.lines)
        for place, (container, each) in enumerate(zip(axes.containers, comparisons, strict=True)):
            dot, _, (bar,) = container.lines
            ends = [[each.simultaneous.low, place], [each.simultaneous.high, place]]
            assert bar.get_segments()[0] == pytest.approx(np.array(ends))
            assert (dot.get_markerfacecolor() == dot.get_color()) == each.settled
    assert found.comparisons["direct", "original"].settled
    assert panels[0].get_xlim() == panels[1].get_xlim()


def test_a_forest_plot_says_what_else_than_its_baseline_is_subtracted() -> None:
    def titles(*names: str) -> list[str]:
        found = results({name: [0.5 + place / 50, 0.6] for place, name in enumerate(names)}, "none")
        return [axes.get_title(loc="left") for axes in difference_figure(found).axes]

    best = ("none", "none_best", "direct", "direct_best")
    assert titles("original_best", *best) == ["minus original_best", "minus none, other rows in _best minus none_best"]
    assert titles("original_best", "none_best", "direct_best") == ["minus original_best", "minus none_best"]
    each = [f"{name}@{factor}" for name in ("none", "direct") for factor in (1, 5)]
    assert titles("original", *each) == ["minus original", "minus none with as many copies"]
    each = [f"{name}@{factor}" for name in best for factor in (1, 5)]
    assert titles(*each) == ["minus none with as many copies, other rows in _best minus none_best"]


@pytest.mark.filterwarnings("error")
def test_a_study_of_one_row_has_no_differences_and_one_of_a_single_seed_no_intervals(tmp_path: Path) -> None:
    assert set(figures(results({"original": [0.5, 0.6]}))) == {"accuracy"}
    alone = written(results({"original": [0.5, 0.6]}), tmp_path)
    assert "<h2>Differences" not in alone
    assert "Nothing was compared" in alone
    single = results({"original": [0.5], "none": [0.6]}, "none")
    assert set(figures(single)) == {"accuracy", "differences"}
    assert "From a single data seed there is no interval, so nothing is settled." in written(single, tmp_path)


def test_the_scale_of_accuracies_beside_the_fidelity_figure_is_inside_the_figure() -> None:
    figure = fidelity_figure(measured(NUMBERS, "frechet_distance", "diversity"), "frechet_distance", "diversity")
    FigureCanvasAgg(figure).draw()
    assert all(axes.get_tightbbox().x1 <= figure.bbox.x1 for axes in figure.axes)


def test_equal_differences_of_all_seeds_have_no_interval_and_are_not_settled(tmp_path: Path) -> None:
    """A t test would be certain: its interval has no width and its p-value is 0."""
    same = results({"original": [0.5, 0.625], "none": [0.75, 0.875]}, "none")
    comparison = same.comparisons["none", "original"]
    assert (comparison.mean, comparison.simultaneous, comparison.holm, comparison.settled) == (0.25, None, None, False)
    assert comparison_rows(same)[1][1:3] == ["+0.250", "–"]
    assert same.headline()[0].endswith(
        "in each of 2 draws of the training images. Without spread there is no interval."
    )
    print_results(same)
    written(same, tmp_path)


def test_fidelity_and_diversity_are_the_best_known_measures_of_each() -> None:
    assert axes_of(measured(NUMBERS, "frechet_distance", "kernel_distance", "diversity", "coverage")) == (
        "frechet_distance",
        "diversity",
    )
    assert axes_of(measured(NUMBERS, "kernel_distance", "coverage")) == ("kernel_distance", "coverage")
    assert axes_of(measured(NUMBERS, "frechet_distance")) is None
    assert axes_of(measured(NUMBERS, "coverage")) is None
    none = measured(NUMBERS, "frechet_distance", "kernel_distance", "diversity")
    for row in none.rows[1:]:
        for run in row.runs:
            run.measures["frechet_distance"] = float("nan")  # as of no images
    assert axes_of(none) == ("kernel_distance", "diversity")
    assert "fidelity" in figures(none)
    few = measured(NUMBERS, "frechet_distance", "kernel_distance", "coverage")
    few.rows[1].runs[0].remarks = {"frechet_distance": "from few images"}
    assert axes_of(few) == ("kernel_distance", "coverage")


def test_fidelity_against_diversity_has_a_named_dot_for_each_row_with_images_coloured_by_accuracy() -> None:
    found = measured(NUMBERS, "frechet_distance", "diversity")
    rows = points(found, "frechet_distance", "diversity")
    assert [row.method for row in rows] == list(FIVE[1:])
    axes, _ = fidelity_figure(found, "frechet_distance", "diversity").axes
    (dots,) = axes.collections
    expected = [(row.mean("frechet_distance"), row.mean("diversity")) for row in rows]
    assert dots.get_offsets().tolist() == pytest.approx(np.array(expected))
    assert dots.get_array().tolist() == pytest.approx([row.mean("accuracy") for row in rows])
    names = [text for text in axes.texts if text.get_text()]
    assert sorted(text.get_text() for text in names) == sorted(FIVE[1:])
    boxes = [text.get_window_extent() for text in names]
    assert not any(one.overlaps(other) for place, one in enumerate(boxes) for other in boxes[:place])


def test_rows_that_lack_a_newer_measure_are_named_and_the_others_are_drawn(tmp_path: Path) -> None:
    """As runs of a table that an earlier version measured, whose images are gone."""
    found = measured(NUMBERS, "frechet_distance", "kernel_distance", "diversity")
    for name in ("none", "transform_official"):
        for run in found.row(name).runs:
            run.measures = {"frechet_distance": 1.0, "energy_after": 1.0}  # no diversity
    pair = axes_of(found)
    assert pair == ("frechet_distance", "diversity")
    assert [row.method for row in points(found, *pair)] == ["randaugment", "direct"]
    page = " ".join(Page(written(found, tmp_path)).text.split())
    assert "Not drawn, since they lack one of these measures: none, transform_official." in page
    assert "Not drawn" not in " ".join(Page(written(measured(NUMBERS, *pair), tmp_path)).text.split())

    for run in found.row("randaugment").runs:
        run.measures = {}
        run.expanded = "somewhere"  # images of its own, of which nothing is known
    assert [row.method for row in points(found, *pair)] == ["direct"]
    assert "fidelity" in figures(found)
    words = "Not drawn, since they lack one of these measures: randaugment, none, transform_official."
    assert words in fidelity_caption(found, *pair)


def test_the_pair_of_measures_is_one_that_several_rows_have() -> None:
    """A distance without a remark that a single row has does not make the figure a single dot."""
    found = measured(NUMBERS, "frechet_distance", "diversity")
    for run in found.row("direct").runs:
        run.measures["kernel_distance"] = 0.1
        run.remarks = {"frechet_distance": "from few images"}
    assert axes_of(found) == ("frechet_distance", "diversity")
    assert "There is a remark on the frechet distance, below the table." in fidelity_caption(found, *axes_of(found))
    for run in found.row("none").runs:
        run.measures["kernel_distance"] = 0.2
    assert axes_of(found) == ("kernel_distance", "diversity")


def test_names_cover_no_dot_of_a_row_without_a_name() -> None:
    rows = {name: [0.9, 0.9] for name in map("named {}".format, range(MOST_NAMES))} | {"direct": [0.9, 0.9]}
    found = measured({"original": [0.5, 0.6]} | rows | {"last": [0.1, 0.1]}, "a", "b")
    for place, row in enumerate(found.rows[1:]):
        for run in row.runs:
            run.measures = {"a": place / 100, "b": (place // 2) / 100}
    found.row("last").runs[0].measures = found.row("last").runs[1].measures = {
        "a": 0.012,
        "b": 0.0,
    }  # where a name would be
    axes = fidelity_figure(found, "a", "b").axes[0]
    (x, y), dot = axes.transData.transform((0.012, 0.0)), 6
    boxes = [text.get_window_extent() for text in axes.texts if text.get_text()]
    assert len(boxes) == MOST_NAMES
    assert not [box for box in boxes if box.x0 < x + dot and x - dot < box.x1 and box.y0 < y + dot and y - dot < box.y1]
    assert f"Names stand beside {MOST_NAMES} of {MOST_NAMES + 2} dots" in fidelity_caption(found, "a", "b")


def test_a_study_of_factors_without_original_images_has_its_figures(tmp_path: Path) -> None:
    """Its baseline `none` stands for a row of each factor, so that no single row is the dashed line."""
    rows = {"none@1": [0.5, 0.6], "direct@1": [0.6, 0.7], "none@5": [0.6, 0.7], "direct@5": [0.7, 0.8]}
    found = results(rows, "direct@5")
    assert (found.baselines, dashed_row(found)) == (["none"], None)
    text = written(found, tmp_path)
    assert "Dashed" not in text
    assert len(Page(text).all("svg")) == 3
    assert "Dashed: the mean of original." in written(results(NUMBERS), tmp_path)


def test_the_caption_says_that_there_are_intervals_where_nothing_is_compared(tmp_path: Path) -> None:
    words = "with 95 % Student t intervals, each by itself"
    assert words in written(results({"original": [0.5, 0.6]}), tmp_path)
    assert words not in written(results({"original": [0.5]}), tmp_path)


def test_rows_that_are_subtracted_are_shown_whatever_their_accuracy() -> None:
    many = {f"row {place}@5": [0.9, 0.91] for place in range(2 * MOST)}
    rows = {"none@1": [0.1, 0.1], "none@5": [0.1, 0.1], "direct@5": [0.5, 0.6], "direct@1": [0.5, 0.6]} | many
    assert {"none@1", "none@5", "direct@5"} < {row.method for row in shown_rows(results(rows, "direct@5"))}


def test_a_table_of_many_measures_is_printed_whole(capsys) -> None:
    names = ["frechet_distance", "kernel_distance", "label_consistency", "coverage", "diversity", "near_copies"]
    print_results(measured(NUMBERS, *names, "energy_before", "energy_after", "images_per_second"))
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith(" ")]
    assert all("…" not in line for line in lines)
    assert sum(line.count("↑") for line in lines) == 9
    assert max(len(line.rstrip()) for line in lines) <= 130


def test_names_of_dots_in_one_place_do_not_cover_each_other() -> None:
    found = measured({name: [0.5, 0.6] for name in ("original", *(f"row {place}" for place in range(12)))}, "a", "b")
    for row in found.rows[1:]:
        for run in row.runs:
            run.measures = {"a": 1.0, "b": 1.0}
    texts = [text for text in fidelity_figure(found, "a", "b").axes[0].texts if text.get_text()]
    boxes = [text.get_window_extent() for text in texts]
    assert len(boxes) == 12
    assert not any(one.overlaps(other) for place, one in enumerate(boxes) for other in boxes[:place])


def test_a_report_of_two_hundred_rows_shows_the_most_telling_in_figures_and_all_in_tables(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    rows = {name: list(rng.normal(0.5, 0.01, 3)) for name in ("original", "none", *map("row {}".format, range(197)))}
    rows |= {"direct": [0.1, 0.1, 0.1]}
    found = measured(rows, "frechet_distance", "diversity")
    found.comparisons  # noqa: B018 (the bootstrap is not what this test times)
    began = time.process_time()
    text = written(found, tmp_path)
    assert time.process_time() - began < 20
    assert len(text) < 2_000_000
    shown = [row.method for row in shown_rows(found)]
    assert len(shown) == MOST
    assert {"original", "none", "direct"} < set(shown)
    left_out = [np.mean(rows[name]) for name in rows if name not in shown]
    assert max(left_out) <= min(np.mean(rows[name]) for name in shown if name not in ("original", "none", "direct"))
    assert f"Of 200 rows the figure shows {MOST}" in text
    page = Page(text)
    assert len([cell for cell in page.all("th") if cell.get("scope") == "row"]) == 200 + (199 + 198) + 199
    assert [div["class"] for div in page.all("div") if "table" in div["aria-label"]] == ["scroll tall"] * 3 + ["scroll"]
    heights = [float(svg["height"].removesuffix("pt")) for svg in page.all("svg")]
    assert max(heights) < 2 * MOST * 25
