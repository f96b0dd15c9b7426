"""Two ranks search settings together, and choose what one process chooses."""

import json
import sys
from pathlib import Path

import forked
import pytest
from conftest import compose, small_overrides

from distdiff.commands.expand import expand
from distdiff.store.comparison import content_differences

SEARCHES = {
    "mean accuracy in the folds": [
        "tune.rows=[none,direct]",
        "tune.strengths=[0.9]",
        "tune.repeats=2",
        "tune.recipe.steps=3",
    ],
    "how well features recognise": ["tune.criterion=agreement", "tune.strengths=[0.5,0.9]", "tune.images=20"],
}


@pytest.mark.parametrize("said", SEARCHES)
def test_two_ranks_choose_what_one_process_chooses(
    said: str, pipeline_folder: Path, image_folder: Path, tmp_path: Path
) -> None:
    """With caches of their own, so that the ranks make and measure all candidates again."""
    dataset = ["dataset=imagefolder", f"dataset.root={image_folder}"]
    search = ["expansion.tune=true", "tune.folds=2", *SEARCHES[said]]
    one, two = tmp_path / "one", tmp_path / "two"
    one.mkdir()
    whole = expand(compose("expand", [*small_overrides(pipeline_folder, one), *dataset, *search]), one)
    command = [sys.executable, "experiments/expand.py", *small_overrides(pipeline_folder, two), *dataset, *search]
    done = forked.run_two_ranks([*command, f"hydra.run.dir={two}/run"])
    assert done.returncode == 0, done.stderr
    assert done.stdout.count(f"tuning: {said}") == 1
    found, made = (json.loads(path.read_text()) for path in (one / "results.json", two / "run/results.json"))
    assert found["tuning"] == made["tuning"]
    assert content_differences(whole, Path(made["expanded"])) == []
