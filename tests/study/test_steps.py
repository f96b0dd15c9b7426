"""The stages that a study announces are those that it takes, and what is in the cache counts as done."""

from pathlib import Path
from types import SimpleNamespace

import pytest
from conftest import compose

from distdiff.classification.training import ClassifierTrainer
from distdiff.console.whole import Whole
from distdiff.study.steps import study_steps
from distdiff.study.study import Study

SMALL = ["study.methods=[original,none]", "study.seeds=2", "measure.judge_steps=2", "train.steps=3"]


def test_a_study_takes_the_stages_that_it_announces_and_knows_those_in_the_cache(
    small_run: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = compose("run", [*small_run, *SMALL])
    study, taken = Study(config, tmp_path), []
    plan = study.plan()
    steps = list(study_steps(plan, study.tools))
    of_seeds = [
        [f"{seed}: guide", f"{seed}: original: train"]
        + [f"{seed}: none: {stage}" for stage in ("expand", "measure", "train")]
        for seed in ("seed 0", "seed 1")
    ]
    assert [step.name for step in steps] == ["judge", *of_seeds[0], *of_seeds[1], "test the judge"]
    assert all(step.size != 0 for step in steps)
    assert [step.size for step in steps if step.name.endswith(("expand", "measure"))] == [40] * 4

    before = Whole.step

    def step(self: Whole, name: str, size: float | None = None):
        taken.append((name, self.words().partition(",")[0]))
        return before(self, name, size)

    monkeypatch.setattr(Whole, "step", step)
    study.run(plan)
    assert [name for name, _ in taken] == [step.name for step in steps]
    assert [place for _, place in taken] == [f"stage {number} of 12" for number in range(12)]  # as the one before ended

    again = Study(config, tmp_path)
    known = {step.name for step in study_steps(again.plan(), again.tools) if step.size == 0}
    found = ("judge", "guide", "original: train", "expand")
    assert known == {step.name for step in steps if step.name.endswith(found)} - {"test the judge"}


def test_the_time_of_trainings_after_a_search_is_told_by_the_search(small_run: list[str], tmp_path: Path) -> None:
    """At most: the recipe that is chosen may have fewer steps than the longest."""
    best = ["study.methods=[original_best]", "study.best.steps=[2,7]", "study.training_seeds=3", "study.seeds=1"]
    study = Study(compose("run", [*small_run, *best, "measure.judge_steps=2"]), tmp_path)
    search, train = (step for step in study_steps(study.plan(), study.tools) if "original_best" in step.name)
    assert (search.size, train.size) == (3 * (2 + 7), 2 * 7)  # three augmentations; two training seeds are left
    now = [0.0]
    whole = Whole([search, train], lambda: now[0])
    with whole.step(search.name):
        whole.count(SimpleNamespace(done=27, before=0, elapsed=54.0))
        now[0] = 54.0
    assert whole.remaining() == pytest.approx(2 * 14)


# 20 real images and, in the second row, 40 copies of them, in batches of 32; the third row has 20 copies and batches of 8.
ROWS = ["study.methods=[original,randaugment]", "study.seeds=1", "measure.judge_steps=2", "train.epochs=3"]
SMALLER = "study.rows={small: [method=augmentation, expansion.factor=1, train.batch_size=8]}"
BUDGETS = {
    "steps": [3 * 2, 3 * 2, 3 * 8],  # as many as 3 epochs of 60 images need, in batches of the row's own size
    "epochs": [3 * 1, 3 * 2, 3 * 5],
}


@pytest.mark.parametrize("budget", BUDGETS)
def test_rows_have_equal_steps_or_equal_epochs(budget: str, small_run: list[str], tmp_path: Path) -> None:
    study = Study(compose("run", [*small_run, *ROWS, SMALLER, f"train.budget={budget}"]), tmp_path)
    steps = study_steps(study.plan(), study.tools)
    assert [step.size for step in steps if step.name.endswith(": train")] == BUDGETS[budget]


def test_rows_take_the_steps_that_the_display_announces(
    small_run: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unlike_the_guide = "train.label_smoothing=0.1"
    config = compose("run", [*small_run, *ROWS, "train.budget=epochs", unlike_the_guide])
    study, taken = Study(config, tmp_path), {}
    plan = study.plan()
    announced = {step.name: step.size for step in study_steps(plan, study.tools) if step.name.endswith(": train")}
    fit = ClassifierTrainer._fit

    def counted(self, trainer, data, seed):
        classifier = fit(self, trainer, data, seed)
        taken[trainer.callbacks[0].title] = trainer.global_step
        return classifier

    monkeypatch.setattr(ClassifierTrainer, "_fit", counted)
    study.run(plan)
    assert {name: taken[name] for name in announced} == announced


def test_rows_whose_sources_the_guide_decides_on_have_equal_steps_too(small_run: list[str], tmp_path: Path) -> None:
    keys = [*small_run, "study.methods=[original,none]", "study.seeds=1", "train.epochs=2", "train.batch_size=10"]
    study = Study(compose("run", [*keys, "expansion.sources=hard"]), tmp_path)
    steps = study_steps(study.plan(), study.tools)
    assert [step.size for step in steps if step.name.endswith(": train")] == [2 * 6] * 2


def test_a_guide_that_no_row_reads_is_no_stage(small_run: list[str], tmp_path: Path) -> None:
    """It would take minutes, or hours with a first round of images (`encoder.guide.copies`)."""

    def guides(*methods: str) -> int:
        keys = [f"study.methods=[{','.join(methods)}]", "study.seeds=1", "encoder.guide.copies=1"]
        study = Study(compose("run", [*small_run, *keys]), tmp_path)
        return sum(step.name.endswith(": guide") for step in study_steps(study.plan(), study.tools))

    assert (guides("original", "randaugment"), guides("none"), guides("randaugment+energy")) == (0, 1, 0)
    assert guides("original", "randaugment", "direct") == 1
