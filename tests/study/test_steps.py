"""The stages that a study announces are those that it takes, and what is in the cache counts as done."""

from pathlib import Path

import pytest
from conftest import compose

from distdiff.console.whole import Whole
from distdiff.study.study import Study

SMALL = ["study.methods=[original,randaugment]", "study.seeds=2", "measure.judge_steps=2", "train.steps=3"]


def test_a_study_takes_the_stages_that_it_announces_and_knows_those_in_the_cache(
    small_run: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = compose("run", [*small_run, *SMALL])
    study, taken = Study(config, tmp_path), []
    plan = study.plan()
    steps = list(study._steps(plan))
    of_seeds = [
        [f"{seed}: guide", f"{seed}: original: train"]
        + [f"{seed}: randaugment: {stage}" for stage in ("expand", "measure", "train")]
        for seed in ("seed 0", "seed 1")
    ]
    assert [step.name for step in steps] == ["judge", *of_seeds[0], *of_seeds[1], "test the judge"]
    assert all(step.size != 0 for step in steps)
    assert [step.size for step in steps if step.name.endswith(("expand", "measure"))] == [40] * 4

    before = Whole.step

    def step(self: Whole, name: str):
        taken.append((name, self.words().partition(",")[0]))
        return before(self, name)

    monkeypatch.setattr(Whole, "step", step)
    study.run(plan)
    assert [name for name, _ in taken] == [step.name for step in steps]
    assert [place for _, place in taken] == [f"stage {number} of 12" for number in range(12)]  # as the one before ended

    again = Study(config, tmp_path)
    known = {step.name for step in again._steps(again.plan()) if step.size == 0}
    found = ("judge", "guide", "original: train", "expand")
    assert known == {step.name for step in steps if step.name.endswith(found)} - {"test the judge"}
