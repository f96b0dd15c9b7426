"""The page that ends a sweep: what it shows for jobs of every kind, and that nothing can break it or break out of it."""

import json
import re
import shlex
from html import unescape
from pathlib import Path

import numpy as np
import pytest
import yaml
from conftest import ROOT, compose_once
from study_results import results
from sweeps import failed_job, jobs_over, plain_job, study_job

from distdiff.commands.configuration import load_option
from distdiff.commands.launch import RETURN_FIGURES
from distdiff.keys import build
from distdiff.option_files.search_path import OURS
from distdiff.report.sweep.choosing import choices
from distdiff.report.sweep.ending import SweepPage
from distdiff.report.sweep.figure import panels
from distdiff.report.sweep.final_test import final_test
from distdiff.report.sweep.page import write_sweep
from distdiff.report.sweep.scales import Scale
from distdiff.report.sweep.settings import Sweep
from distdiff.report.sweep.tables import settings_table
from distdiff.report.table import ARROWS
from distdiff.study.results import measures_of
from distdiff.tracking.sweep import SweptJobs

MEASURES = {"frechet_distance": 12.0, "label_consistency": 0.8, "coverage": 0.3, "diversity": 2.0}
SEEDS = [0.70, 0.74, 0.66]
NASTY = "<script>alert(1)</script>$x_1$&\"'"


def page_of(place: Path, command: str = "run") -> str:
    return write_sweep(command, place, SweptJobs(place).read()).read_text()


def sweep_of(place: Path, command: str = "run") -> Sweep:
    return Sweep.of(command, place, SweptJobs(place).read())


def test_the_page_shows_accuracy_and_measures_against_the_strength_with_their_values_in_words(tmp_path: Path) -> None:
    for rho, gain in ((0, 0.0), (0.1, 0.02), (10, 0.1)):
        study_job(tmp_path, f"guidance.rho={rho}", {"none": SEEDS, "direct": np.add(SEEDS, gain)}, measures=MEASURES)
    page = page_of(tmp_path)
    titles = re.findall(r'<title id="figure-[^"]*">([^<]*)</title>', page)
    assert [title.split(" by ")[0] for title in titles] == [
        *("accuracy ↑ (validation)", "accuracy − unguided, paired", "frechet distance ↓", "label consistency ↑"),
        *("coverage ↑", "diversity ↑"),
    ]
    assert "guidance.rho 10: 0.800 (" in page
    assert "unguided: 0.700 (" in page
    assert "Unguided expansion: accuracy 0.700 [" in page
    assert "The accuracy of the best of 3 settings" in page  # unguided expansion is that of strength 0
    assert page.count("<svg") == len(titles)
    assert (tmp_path / "sweep.svg").read_text().count("<svg") == 1


@pytest.mark.parametrize("are_drawn", [True, False])
def test_the_page_says_if_all_data_seeds_have_the_same_real_images(are_drawn: bool, tmp_path: Path) -> None:
    for rho in (0.1, 10):
        study_job(tmp_path, f"guidance.rho={rho}", {"none": SEEDS, "direct": SEEDS}, are_drawn=are_drawn)
    assert ("All data seeds train on the same real images" in page_of(tmp_path)) != are_drawn


@pytest.mark.parametrize("command", ["expand", "measure", "train"])
def test_other_commands_end_with_a_page_of_what_they_have(command: str, tmp_path: Path) -> None:
    for number in range(3):
        found = {
            "coverage": 0.1 * number,
            "leaks": {},
            "seed": number,
            "images": 5,
            "higher_is_better": {"coverage": True},
        }
        plain_job(tmp_path, f"seed={number} x=a", found)
        plain_job(tmp_path, f"seed={number} x=b", {"coverage": 0.5, "remarks": {}, "seed": number, "images": 5})
    page = page_of(tmp_path, command)
    assert "coverage ↑ by setting" in page
    assert "a: 0.100 (-0.148 to 0.348); b: 0.500" in page
    assert f"The jobs of {command} have no accuracy" in page


def test_names_and_errors_are_shown_as_text(tmp_path: Path) -> None:
    study_job(tmp_path, f"guidance={NASTY}", {"direct": SEEDS}, measures={NASTY: 1.0}, dataset=NASTY)
    study_job(tmp_path, "guidance=x", {"direct": SEEDS}, measures={NASTY: 2.0})
    failed_job(tmp_path, "guidance=y", f"no {NASTY} here")
    page = page_of(tmp_path)
    assert "<script>alert" not in page
    assert f"no {NASTY} here" in unescape(page)
    assert len(re.findall("<script>", page)) == 1  # ours, which sorts tables
    assert not re.search(r'(?:src|href)="(?!data:|#)', page)
    assert "http" not in page.replace("http://www.w3.org/2000/svg", "").replace("http-equiv", "")


def test_failed_jobs_are_named_with_their_errors_and_the_others_are_compared(tmp_path: Path) -> None:
    jobs_over(tmp_path, "guidance.rho", {0.1: SEEDS, 1: np.add(SEEDS, 0.1)}, SEEDS)
    failed_job(tmp_path, "guidance.rho=3 seed=1000", "the disk is full")
    page = page_of(tmp_path)
    assert "1 of 3 jobs failed" in page
    assert "Job 2 (guidance.rho=3): the disk is full" in page
    assert "Use ρ = 1: it has the highest mean accuracy" in page


def test_two_numeric_keys_give_a_heat_map_with_the_chosen_cell_framed(tmp_path: Path) -> None:
    for rho in (0.1, 1):
        for period in (2, 5):
            accuracies = np.add(SEEDS, rho / 10 + period / 100)
            study_job(tmp_path, f"guidance.rho={rho} guidance.period={period}", {"direct": accuracies})
    sweep = sweep_of(tmp_path)
    (panel,) = panels(sweep, choices(sweep))
    assert "by guidance strength ρ (guidance.rho) and guidance.period" in panel.title
    (axes,) = panel.figure.axes
    assert sorted(text.get_text() for text in axes.texts) == ["0.73", "0.76", "0.82", "0.85"]
    assert [patch.get_xy() for patch in axes.patches] == [(1, 1)]
    assert "framed: chosen" in axes.get_title()


def test_numbers_that_a_sweeper_has_drawn_are_points(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    for _ in range(12):
        study_job(
            tmp_path, f"guidance.rho={random.uniform():.4f} guidance.cfg={random.uniform():.4f}", {"direct": SEEDS}
        )
    panel, *_ = panels(sweep_of(tmp_path), ())
    assert len(panel.figure.axes[0].collections[0].get_offsets()) == 12


def test_keys_that_are_no_numbers_are_series_and_not_axes(tmp_path: Path) -> None:
    for guidance in ("direct", "transform"):
        for rho in (0.1, 10):
            study_job(tmp_path, f"guidance={guidance} guidance.rho={rho}", {"direct": SEEDS})
    (panel,) = panels(sweep_of(tmp_path), ())
    (axes,) = panel.figure.axes
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["direct", "transform"]
    lists = tmp_path / "lists"
    for value in ("[0.5,0.7]", "[0.3,0.9]", "null"):
        study_job(lists, f"expansion.strength={value}", {"direct": SEEDS})
    assert sweep_of(lists).axes == ()
    (panel,) = panels(sweep_of(lists), ())
    assert [text.get_text() for text in panel.figure.axes[0].get_yticklabels()] == ["[0.5,0.7]", "[0.3,0.9]", "null"]


def test_zero_stands_apart_on_a_logarithmic_axis() -> None:
    scale = Scale.of([10, 0, 0.1, 0.3, 1, 3])
    places = [scale.place(value) for value in scale.values]
    assert scale.is_log
    assert places == sorted(places)
    assert places[1:] == pytest.approx(np.log10([0.1, 0.3, 1, 3, 10]))
    assert places[1] - places[0] >= np.diff(places[1:]).min()
    assert scale.ticks == [0, 0.1, 0.3, 1, 3, 10]
    assert not any(Scale.of(values).is_log for values in ([1, 2, 3], [-1, 1, 100], [0], [5], [0, 1]))


def test_hundreds_of_jobs_make_a_page_of_moderate_size(tmp_path: Path) -> None:
    for number in range(200):
        study_job(tmp_path, f"guidance.rho={number / 10}", {"direct": np.add(SEEDS, number / 1e4)})
    page = page_of(tmp_path)
    assert len(page) < 350_000
    assert page.count("<tr>") == 202 + 200  # a row for each setting and for each job, and the titles
    sweep = sweep_of(tmp_path)
    assert len(Scale.of([setting.number("guidance.rho") for setting in sweep.settings]).ticks) <= 10


def test_more_settings_than_can_be_drawn_are_counted(tmp_path: Path) -> None:
    for number in range(60):
        study_job(tmp_path, f"method=m{number}", {"direct": np.add(SEEDS, number / 1e3)})
    page = page_of(tmp_path)
    assert "The figures show the 40 with the highest accuracy of 60 settings; the table has all." in page
    (panel,) = panels(sweep_of(tmp_path), ())
    assert [text.get_text() for text in panel.figure.axes[0].get_yticklabels()] == [f"m{n}" for n in range(20, 60)]


def test_of_more_settings_than_can_be_drawn_those_that_are_better_by_the_metric_are_drawn(tmp_path: Path) -> None:
    for better, kept, word in (
        (True, range(20, 60), "highest"),
        (False, range(40), "lowest"),
        (None, range(40), "first"),
    ):
        place = tmp_path / word
        for number in range(60):
            plain_job(
                place, f"method=m{number}", {"own_metric": number / 10, "higher_is_better": {"own_metric": better}}
            )
        page = page_of(place, "measure")
        assert (
            f"The figures show the {'first 40' if better is None else f'40 with the {word} own metric'} of 60" in page
        )
        (panel,) = panels(sweep_of(place, "measure"), ())
        assert panel.title == f"own metric{ARROWS[better]} by setting"
        assert [text.get_text() for text in panel.figure.axes[0].get_yticklabels()] == [f"m{n}" for n in kept]


def test_the_figures_of_all_values_show_the_same_settings(tmp_path: Path) -> None:
    for number in range(60):
        measures = {"near_copies": number / 10, "coverage": -number / 10}
        study_job(tmp_path, f"method=m{number}", {"direct": np.add(SEEDS, number / 1e3)}, measures=measures)
    drawn = [
        [text.get_text() for text in panel.figure.axes[0].get_yticklabels()] for panel in panels(sweep_of(tmp_path), ())
    ]
    assert drawn == [[f"m{n}" for n in range(20, 60)]] * 2


def test_each_metric_says_itself_in_which_direction_it_is_better(tmp_path: Path) -> None:
    found = {name: load_option("metric", name) for name in OURS.options("metric")}
    metrics = {name: build(option) for name, option in found.items()}
    assert len(metrics) >= 13
    for rho in (1, 3):
        job = study_job(tmp_path, f"guidance.rho={rho}", {"direct": SEEDS}, measures=dict.fromkeys(metrics, 1.0))
        path = Path(job.directory, "results.json")
        known = json.loads(path.read_text())
        known["higher_is_better"] |= results({"direct": SEEDS}, measures=measures_of(metrics)).as_dict()[
            "higher_is_better"
        ]
        path.write_text(json.dumps(known))
    titles = re.findall(r"<th scope=\"col\"[^>]*>([^<]*)</th>", page_of(tmp_path))
    for name, metric in metrics.items():
        arrow = {True: "\N{NO-BREAK SPACE}↑", False: "\N{NO-BREAK SPACE}↓", None: ""}[metric.higher_is_better]
        assert name.replace("_", " ") + arrow in titles


def rings(axes) -> list[tuple[float, float]]:
    """The points that are marked as chosen."""
    return [(line.get_xdata()[0], line.get_ydata()[0]) for line in axes.lines if line.get_label() == "chosen"]


def test_where_unguided_expansion_is_chosen_its_line_is_marked_and_no_strength(tmp_path: Path) -> None:
    level = float(np.mean(SEEDS))
    worse = {0.1: np.subtract(SEEDS, [0.1, 0.2, 0.1]), 1: np.subtract(SEEDS, 0.2)}
    jobs_over(tmp_path / "line", "guidance.rho", worse, SEEDS)
    jobs_over(tmp_path / "zero", "guidance.rho", {0: SEEDS} | worse, SEEDS)
    jobs_over(tmp_path / "dots", "guidance", {"direct": worse[0.1], "tfg": worse[1]}, SEEDS)
    marked = {}
    for name in ("line", "zero", "dots"):
        sweep = sweep_of(tmp_path / name)
        panel, *_ = panels(sweep, choices(sweep))
        (marked[name],) = rings(panel.figure.axes[0])
        assert panel.description.endswith("chosen: unguided" if name != "zero" else "chosen: guidance.rho 0")
        page = page_of(tmp_path / name)
        assert "Use unguided expansion (guidance=none" in page
        assert "Use ρ" not in page
    zero = Scale.of([0, 0.1, 1]).place(0)
    assert [marked["line"], marked["zero"], marked["dots"]] == [
        pytest.approx((1, level)),  # at the right end, where no strength is
        pytest.approx((zero, level)),
        pytest.approx((level, 1)),
    ]


def test_unguided_expansion_has_a_line_of_its_own_in_the_table_unless_a_strength_is_the_same(tmp_path: Path) -> None:
    worse = {0.1: np.subtract(SEEDS, [0.1, 0.2, 0.1]), 1: np.subtract(SEEDS, 0.2)}
    for name, strengths in {"line": worse, "zero": {0: SEEDS} | worse}.items():
        jobs_over(tmp_path / name, "guidance.rho", strengths, SEEDS)
    titles = ["guidance.rho", "guided", "chosen"]
    tables = {name: settings_table(sweep := sweep_of(tmp_path / name), choices(sweep)) for name in ("line", "zero")}
    assert [row[:3] for row in tables["zero"]] == [titles, ["0", "no", "yes"], ["0.1", "yes", ""], ["1", "yes", ""]]
    assert [row[1:3] for row in tables["line"]] == [titles[1:], ["no", "yes"], ["yes", ""], ["yes", ""]]
    for other in (2, 5):  # two settings that are the same: the line of unguided expansion stays
        for rho in (0, 1):
            rows = {"none": SEEDS, "direct": np.subtract(SEEDS, [rho / 10, rho / 5, rho / 10])}
            study_job(tmp_path / "two", f"guidance.rho={rho} guidance.period={other}", rows)
    two = settings_table(sweep := sweep_of(tmp_path / "two"), choices(sweep))
    assert len(two) == 6
    assert [row[3] for row in two[1:]] == ["yes", "", "", "", ""]


def test_where_unguided_expansion_is_chosen_of_several_the_point_of_its_setting_is_marked(tmp_path: Path) -> None:
    for factor in (2, 5):
        rows = {"none": np.add(SEEDS, factor / 100), "direct": np.subtract(SEEDS, [0.1, 0.2, 0.1])}
        study_job(tmp_path, f"expansion.factor={factor}", rows)
    sweep = sweep_of(tmp_path)
    panel, *_ = panels(sweep, choices(sweep))
    assert rings(panel.figure.axes[0]) == [pytest.approx((5, np.mean(SEEDS) + 0.05))]


def test_a_heat_map_says_where_unguided_expansion_is_chosen(tmp_path: Path) -> None:
    for rho in (0.1, 1):
        for period in (2, 5):
            rows = {"none": SEEDS, "direct": np.subtract(SEEDS, [0.1, 0.2, rho / 10])}
            study_job(tmp_path, f"guidance.rho={rho} guidance.period={period}", rows)
    sweep = sweep_of(tmp_path)
    panel, *_ = panels(sweep, choices(sweep))
    axes, *_ = panel.figure.axes
    assert axes.get_title().endswith("; chosen: unguided, 0.700")
    assert not axes.patches


def test_a_page_that_cannot_be_written_is_one_line(monkeypatch, capsys, tmp_path: Path) -> None:
    jobs_over(tmp_path, "guidance.rho", {0.1: SEEDS, 1: SEEDS})
    (tmp_path / "sweep.html").mkdir()
    SweepPage().conclude("run", tmp_path)
    said = capsys.readouterr().out
    assert "cannot write the page of the sweep there (Is a directory)" in said
    assert said.count("\n") == 1

    def fail(*_: object) -> None:
        raise KeyError("ours\nsecond line")

    monkeypatch.setattr("distdiff.report.sweep.page.write_sweep", fail)
    SweepPage().conclude("run", tmp_path)
    said = capsys.readouterr().out
    assert said.startswith("the page of the sweep could not be made (KeyError: ")
    assert said.count("\n") == 1


@pytest.mark.parametrize("damage", ["results.json", "results.csv"])
@pytest.mark.parametrize("content", ["", "[1]", "{", "method,seed\nx,y\n", "\0"])
def test_damaged_files_of_a_job_do_not_hide_the_others(damage: str, content: str, tmp_path: Path) -> None:
    jobs_over(tmp_path, "guidance.rho", {0.1: SEEDS, 1: SEEDS, 3: SEEDS})
    (tmp_path / "1" / damage).write_text(content)
    sweep = sweep_of(tmp_path)
    assert [setting.mean("accuracy") is not None for setting in sweep.settings][::2] == [True, True]
    assert "Settings" in page_of(tmp_path)


TYPED = "guidance.rho={rho} seed={seed} study.seeds=3 study.methods=[none,chosen] dataset.per_class=5 study.split=validation"


def test_the_command_of_the_final_test_composes_and_has_other_images_and_seeds(tmp_path: Path) -> None:
    for seed, expected in ((1000, 0), (0, 3), (5, 8)):
        place = tmp_path / str(seed)
        for rho in (0.1, 1):
            job = study_job(place, TYPED.format(rho=rho, seed=seed), {"direct": np.add(SEEDS, rho / 10)})
            lines = Path(job.directory, "results.csv").read_text().splitlines()
            moved = [line.replace(f"direct,{n},", f"direct,{seed + n},") for n, line in enumerate(lines[1:])]
            Path(job.directory, "results.csv").write_text("\n".join([lines[0], *moved]) + "\n")
        sweep = sweep_of(place)
        program, command, *overrides = shlex.split(final_test(sweep, choices(sweep)[0]))
        assert (program, command) == ("distdiff", "run")
        config = compose_once("run", overrides)
        assert (config.study.split, config.guidance.rho, config.dataset.per_class) == ("test", 1, 5)
        assert (config.seed, config.study.seeds) == (expected, 10)
        assert config.study.methods == ["original", "none", "direct"]


def test_the_final_test_has_no_rows_that_nobody_chose(tmp_path: Path) -> None:
    for rho in (0.1, 1):
        study_job(tmp_path, f"guidance.rho={rho}", {"none": SEEDS, "direct": np.add(SEEDS, rho / 10)})
    sweep = sweep_of(tmp_path)
    _, _, *overrides = shlex.split(final_test(sweep, choices(sweep)[0]))
    assert compose_once("run", overrides).study.methods == ["original", "none", "direct"]


@pytest.mark.parametrize("prefix", ["", "++"])
def test_the_final_test_of_unguided_expansion_has_no_guidance(prefix: str, tmp_path: Path) -> None:
    for rho in (0.1, 1):
        typed = f"guidance=tfg {prefix}guidance.rho={rho} guidance.recurrence=2 energy=exemplar method=img2img selection=energy"
        typed += f" {prefix}seed=1000 {prefix}study.seeds=3 {prefix}study.methods=[none,chosen] study.split=validation"
        study_job(tmp_path, typed, {"none": SEEDS, "direct": np.subtract(SEEDS, rho / 10)})
    sweep = sweep_of(tmp_path)
    _, command, *overrides = shlex.split(final_test(sweep, choices(sweep)[0]))
    assert command == "run"
    config = compose_once("run", overrides)
    assert (config.guidance.name, config.selection.name, config.study.split) == ("none", "all", "test")
    assert config.study.methods == ["original", "none"]
    assert (config.seed, config.study.seeds) == (3, 10)  # the jobs' data seeds are 0, 1 and 2


def test_a_chosen_training_is_tested_with_another_seed(tmp_path: Path) -> None:
    for rate in (0.1, 0.2):
        figures = {"accuracy": rate, "seed": 0, "dataset": "d", "split": "validation"}
        plain_job(tmp_path, f"optimizer.learning_rate={rate}", figures)
    sweep = sweep_of(tmp_path, "train")
    assert final_test(sweep, choices(sweep)[0]) == (
        "distdiff train optimizer.learning_rate=0.2 train.split=test seed=1"
    )


def test_the_shipped_wandb_sweep_composes_and_maximises_what_a_job_returns(monkeypatch) -> None:
    from wandb.sdk.launch.sweeps.utils import create_sweep_command_args

    sweep = yaml.safe_load((ROOT / "experiments/sweeps/guidance_strength.yaml").read_text())
    assert sweep["metric"] == {"name": "accuracy", "goal": "maximize"}
    assert (ROOT / sweep["program"]).is_file()
    strengths = sweep["parameters"]["guidance.rho"]["values"]
    for strength in (strengths[0], strengths[-1]):
        filled = create_sweep_command_args({"args": {"guidance.rho": {"value": strength}}})["args_no_hyphens"]
        place = sweep["command"].index("${args_no_hyphens}")
        assert sweep["command"][:place] == ["${env}", "${interpreter}", "${program}"]
        config = compose_once("run", [*filled, *sweep["command"][place + 1 :]])
        assert (config.guidance.rho, config.study.split, config.study.objective) == (strength, "validation", "accuracy")
        assert config.seed >= 1000
    found = results({"none": [0.5, 0.6], "direct": [0.7, 0.9]})
    assert found.summary()["accuracy"] == found.objective("accuracy") == pytest.approx(0.8)
    assert "accuracy" not in results({"none": [0.5]}).summary()
    assert "run" in RETURN_FIGURES
