"""Two ranks search settings together, and choose what one process chooses."""

import json
import sys
from pathlib import Path

import forked
from conftest import compose, small_overrides

from distdiff.commands.expand import expand
from distdiff.store.comparison import content_differences

SEARCH = [
    *("expansion.tune=true", "tune.rows=[none,direct]", "tune.strengths=[0.9]"),
    *("tune.folds=2", "tune.repeats=2", "tune.recipe.steps=3"),
]


def test_two_ranks_choose_what_one_process_chooses(pipeline_folder: Path, image_folder: Path, tmp_path: Path) -> None:
    """With caches of their own, so that the ranks make and measure all candidates again."""
    dataset = ["dataset=imagefolder", f"dataset.root={image_folder}"]
    one, two = tmp_path / "one", tmp_path / "two"
    one.mkdir()
    whole = expand(compose("expand", [*small_overrides(pipeline_folder, one), *dataset, *SEARCH]), one)
    command = [sys.executable, "experiments/expand.py", *small_overrides(pipeline_folder, two), *dataset, *SEARCH]
    done = forked.run_two_ranks([*command, f"hydra.run.dir={two}/run"])
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("tuning: mean accuracy in the folds") == 1
    found, made = (json.loads(path.read_text()) for path in (one / "results.json", two / "run/results.json"))
    assert found["tuning"] == made["tuning"]
    assert content_differences(whole, Path(made["expanded"])) == []
