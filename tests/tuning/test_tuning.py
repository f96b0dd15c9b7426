"""`expansion.tune=true`: which candidates there are, that they are judged on real images, and what is made of the choice."""

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import compose

from distdiff.commands.expand import expand
from distdiff.errors import UserError
from distdiff.tuning.candidates import RECORD
from distdiff.tuning.tuner import Tuner, labels_of

SPACE = ["expansion.tune=true", "tune.strengths=[0.5,0.9]"]


def candidates(*overrides: str) -> list[tuple]:
    rows = compose("expand", [*SPACE, *overrides]).options.rows.values()
    return [(row.guidance.name, row.selection.name, row.expansion.strength, row.guidance.get("rho")) for row in rows]


def test_every_row_has_every_strength_and_guided_ones_every_rho() -> None:
    assert candidates("tune.rhos=[1,3]") == [
        *(("none", "all", 0.5, None), ("none", "all", 0.9, None)),
        *(("direct", "all", 0.5, 1), ("direct", "all", 0.5, 3), ("direct", "all", 0.9, 1), ("direct", "all", 0.9, 3)),
        *(("none", "coverage", 0.5, None), ("none", "coverage", 0.9, None)),
        *(("feedback", "coverage", s, rho) for s in (0.5, 0.9) for rho in (1, 3)),
    ]


@pytest.mark.parametrize(
    ("typed", "found"),
    [
        (
            ["guidance=mpgd", "tune.rows=[none,direct]"],
            [("none", "all", 0.5), ("none", "all", 0.9), ("mpgd", "all", 0.5), ("mpgd", "all", 0.9)],
        ),
        (
            ["expansion.strength=0.6", "selection=energy"],
            [(name, "energy", 0.6) for name in ("none", "direct", "feedback")],
        ),
        (["guidance=none", "tune.rows=[none]"], [("none", "all", 0.5), ("none", "all", 0.9)]),
    ],
)
def test_what_was_typed_is_not_searched(typed: list[str], found: list[tuple]) -> None:
    assert [each[:3] for each in candidates(*typed)] == found


def test_typed_keys_of_an_option_that_only_some_candidates_have_are_theirs() -> None:
    config = compose(
        "expand", [*SPACE, "tune.rows=[none,transform,none+coverage]", "selection.ratio=3", "guidance.epsilon=0.1"]
    )
    rows = list(config.options.rows.values())
    assert {row.selection.ratio for row in rows if row.selection.name == "coverage"} == {3}
    assert {row.guidance.epsilon for row in rows if row.guidance.name == "transform"} == {0.1}
    with pytest.raises(UserError, match=r"selection=all does not read selection.ratio"):
        compose("expand", [*SPACE, "tune.rows=[none]", "selection.ratio=3"])


def test_a_mistake_of_one_candidate_names_it() -> None:
    """`tune.strengths` are defaults, so the message says at which of them the typed key is not allowed."""
    message = (
        r"^tune: candidate guidance=none selection=all expansion.strength=0.3: guidance.start_step=10 is not allowed"
    )
    with pytest.raises(UserError, match=message):
        compose("expand", ["expansion.tune=true", "guidance.start_step=10"])


def test_factors_are_searched_where_they_are_listed_and_not_typed() -> None:
    listed = [*SPACE, "tune.rows=[none]", "tune.factors=[2,4]"]
    rows = compose("expand", listed).options.rows.values()
    assert [(row.expansion.strength, row.expansion.factor) for row in rows] == [(0.5, 2), (0.5, 4), (0.9, 2), (0.9, 4)]
    config = compose("expand", [*listed, "expansion.factor=3"])
    assert {row.expansion.factor for row in config.options.rows.values()} == {3}
    default = compose("expand", [*listed, "tune.factors=[2,10]", "tune.cfg_scales=[2,3]"])  # each with its own default
    assert list(labels_of(default.options.rows).values())[:3] == [
        "none, strength 0.5, scale 2, factor 2",
        "none, strength 0.5, scale 2, factor 10",
        "none, strength 0.9, scale 2, factor 2",
    ]


def test_a_typed_strength_of_guidance_and_scale_are_those_of_all_candidates() -> None:
    config = compose(
        "expand", [*SPACE, "guidance.rho=2", "generator.cfg_scale=3", "tune.rhos=[1]", "tune.cfg_scales=[1,2]"]
    )
    rows = config.options.rows.values()
    assert {row.guidance.rho for row in rows if row.guidance.name == "direct"} == {2}
    assert {row.generator.cfg_scale for row in rows} == {3}
    assert len(rows) == 8


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["tune.folds=3"], "tune.folds=3 is not allowed: expansion.tune=true"),
        ([*SPACE, "tune.rows=[direct]"], "none, which is missing"),
        ([*SPACE, "encoder.guide.copies=2"], "not allowed with encoder.guide.copies=2: each candidate"),
        ([*SPACE, "tune.rows=[none,dirct]"], "did you mean direct"),
        ([*SPACE, "tune.rows=[none,none+cover]"], "did you mean coverage"),
        ([*SPACE, "method=text2img"], "not allowed with method=text2img"),
        (["expansion.tune=true", "tune.strengths=[]"], r"tune.strengths=\[\] is not allowed"),
        (["expansion.tune=true", "tune.strengths=[2]"], "at most 1"),
    ],
)
def test_mistakes_are_one_line(overrides: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        compose("expand", overrides)


def test_only_expand_tunes() -> None:
    with pytest.raises(UserError, match=r"expansion.tune=true is not allowed here: it is for experiments/expand.py"):
        compose("run", ["expansion.tune=true"])


def test_the_choice_is_made_on_images_that_candidates_did_not_see_and_expands_like_typed_keys(
    small_run: list[str], tmp_path: Path, monkeypatch, capsys
) -> None:
    """Whole, with three folds; the second time nothing is made, and the chosen keys give the same directory."""
    seen = []

    class Watched(Tuner):
        def _measured(self, name, rest, fold, *more):
            seen.append((name, {*rest.parts[0].keys}, {*fold.keys}))
            return super()._measured(name, rest, fold, *more)

    monkeypatch.setattr("distdiff.commands.expand.Tuner", Watched)
    tuned = [*small_run, "dataset.per_class=3", "tune.rows=[none,direct]", "tune.recipe.steps=3", "tune.repeats=1"]
    config = compose("expand", [*SPACE, *tuned])
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
    made = expand(config, tmp_path / "first")
    assert len(seen) == 4 * 3  # candidates and folds
    for _, rest, fold in seen:
        assert len(rest) == 20
        assert len(fold) == 10
        assert not rest & fold
    assert len({frozenset(fold) for _, _, fold in seen}) == 3
    record = json.loads((tmp_path / "first" / RECORD).read_text())
    accuracies = {each["candidate"]: each["accuracy"] for each in record["candidates"]}
    assert accuracies.keys() == {
        f"{row}, strength {s}{rho}" for row, rho in (("none", ""), ("direct", ", ρ 0.3")) for s in (0.5, 0.9)
    }
    assert all(0 <= value <= 1 for value in accuracies.values())
    assert json.loads((made / "manifest.json").read_text())["tuning"] == record
    said = " ".join(capsys.readouterr().out.split())
    assert f"chosen: {record['chosen']}" in said
    few = "warning: 30 real images are few to choose from: by chance alone, an accuracy on them is off by up to 0.18 (95 %)"
    assert said.count(few) == 1
    assert not list((tmp_path / "outputs/cache/tuning").iterdir())  # images of candidates are gone
    chosen = next(name for name, label in Tuner(config, *_parts(config)).labels.items() if label == record["chosen"])
    row = config.options.rows[chosen]
    given = [f"guidance={row.guidance.name}", f"expansion.strength={row.expansion.strength}"]
    assert expand(config, tmp_path / "second") == made
    assert len(seen) == 12
    assert json.loads((tmp_path / "second/results.json").read_text())["tuning"] == record
    assert expand(compose("expand", [*small_run, "dataset.per_class=3", *given]), tmp_path / "second") == made


def _parts(config):
    from distdiff.caching.stages import StageCache
    from distdiff.classification.training import few_shot_training_set
    from distdiff.data.datasets import load_dataset
    from distdiff.expansion.generators import Generators

    data = few_shot_training_set(config, load_dataset(config.dataset).train, config.seed)
    return data, StageCache(config.paths.cache_dir), Generators()


def test_a_class_with_a_single_image_cannot_be_tested_on(small_run: list[str]) -> None:
    config = compose("expand", [*SPACE, *small_run, "dataset.per_class=1", "tune.rows=[none]"])
    with pytest.raises(UserError, match=r"class 0 has 1 image, and each class needs two"):
        Tuner(config, *_parts(config))


def test_a_better_candidate_is_expanded_although_it_is_not_the_jobs_own(
    small_run: list[str], tmp_path: Path, monkeypatch
) -> None:
    """The folds are few, so their accuracies are given: `direct` at 0.9 is the best in all of them."""
    rng = np.random.default_rng(0)

    def measured(self: Tuner, name: str, *_: object) -> float:
        row = self.candidates[name]
        return 0.5 + 0.2 * (row.guidance.name == "direct" and row.expansion.strength == 0.9) + 0.01 * rng.random()

    monkeypatch.setattr(Tuner, "_measured", measured)
    config = compose("expand", [*SPACE, *small_run, "tune.rows=[none,direct]", "logger=csv"])
    made = expand(config, tmp_path)
    assert made.name.startswith("digits-direct-")
    record = json.loads((made / "manifest.json").read_text())["tuning"]
    assert record["chosen"] == "direct, strength 0.9, ρ 0.3"
    assert record["difference"] == pytest.approx(0.2, abs=0.01)
    with open(tmp_path / "metrics/metrics.csv", newline="", encoding="utf-8") as file:
        last = [row for row in csv.DictReader(file) if row["tuning_difference"]][-1]
    assert float(last["tuning_difference"]) == pytest.approx(record["difference"])
    assert float(last["tuning_standard_error"]) == pytest.approx(record["standard_error"])


def test_the_choice_stands_in_the_manifest_of_a_directory_that_was_there(
    small_run: list[str], tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.setattr(Tuner, "_measured", lambda *_: 0.5)
    plain = expand(compose("expand", [*small_run, "guidance=none", "expansion.strength=0.5"]), tmp_path)
    before = {path: path.stat().st_mtime_ns for path in plain.glob("*/*.png")}
    assert expand(compose("expand", [*SPACE, *small_run, "tune.rows=[none]"]), tmp_path) == plain
    assert json.loads((plain / "manifest.json").read_text())["tuning"]["chosen"] == "none, strength 0.5"
    assert {path: path.stat().st_mtime_ns for path in plain.glob("*/*.png")} == before


def test_what_a_kill_has_left_does_not_stop_a_search(small_run: list[str], tmp_path: Path, monkeypatch) -> None:
    """A candidate's directory that holds images without a manifest, and one of another format."""
    given = [*SPACE, *small_run, "dataset.per_class=2", "tune.rows=[none]", "tune.recipe.steps=2", "tune.repeats=1"]
    config = compose("expand", given)
    monkeypatch.setattr("distdiff.tuning.tuner.shutil.rmtree", lambda *_, **__: None)  # killed before it is removed
    Tuner(config, *_parts(config)).chosen()
    monkeypatch.undo()
    for number, folder in enumerate(sorted((tmp_path / "outputs/cache/tuning").iterdir())):
        if number % 2:
            (folder / "manifest.json").unlink()
    for path in (tmp_path / "outputs/cache/tuned").glob("*/accuracy.json"):
        path.unlink()
        (path.parent / "ingredients.json").unlink()
        path.parent.rmdir()
    config = compose("expand", [*given, "expansion.format=webdataset"])
    chosen, _ = Tuner(config, *_parts(config)).chosen()
    assert chosen.expansion.format == "webdataset"
    assert not list((tmp_path / "outputs/cache/tuning").iterdir())


def test_a_directory_with_other_files_is_refused_before_the_search(small_run: list[str], tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken/file").write_text("mine")
    config = compose("expand", [*SPACE, *small_run, "tune.rows=[none]", f"expansion.output_dir={tmp_path}/taken"])
    with pytest.raises(UserError, match="it holds other files"):
        Tuner(config, *_parts(config))


def test_one_class_cannot_be_told_apart(small_run: list[str]) -> None:
    config = compose("expand", [*SPACE, *small_run, "tune.rows=[none]"])
    data, *more = _parts(config)
    alone = replace(data, parts=(replace(data.parts[0], class_names=("0",)),))
    with pytest.raises(UserError, match="has one class, and a classifier needs two"):
        Tuner(config, alone, *more)
