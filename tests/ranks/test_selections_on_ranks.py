"""Two ranks select what one process selects, also where more candidates are asked for on the way."""

import shutil
import sys
import time
from pathlib import Path

import forked
import pytest
from conftest import compose, small_overrides

from distdiff.commands.expand import expand
from distdiff.ranks.world import PARTING
from distdiff.store.comparison import content_differences


def made_by_two(given: list[str], place: Path) -> str:
    """Expands into `place` with two ranks; returns what they print."""
    more = [f"expansion.output_dir={place}", "expansion.batch_size=3"]
    command = [sys.executable, "experiments/expand.py", *given, *more]
    done = forked.run_two_ranks(command)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def small(pipeline_folder: Path, image_folder: Path, tmp_path: Path) -> list[str]:
    dataset = ["dataset=imagefolder", f"dataset.root={image_folder}"]
    return [*small_overrides(pipeline_folder, tmp_path), *dataset, "guidance=none", "expansion.sources=hard"]


def test_two_ranks_keep_what_one_process_keeps(small: list[str], tmp_path: Path) -> None:
    """The hard sources and the images that the guide learns from are agreed on before."""
    selection = ["selection=consistency", "selection.ratio=1", "selection.max_ratio=3"]
    given = [*small, *selection, "encoder.guide.copies=1"]
    whole = expand(compose("expand", [*given, f"expansion.output_dir={tmp_path}/whole"]), tmp_path)
    shutil.rmtree(tmp_path / "outputs")  # so that the ranks train the guide again
    began = time.monotonic()
    assert "more candidates for" in made_by_two(given, tmp_path / "made")
    assert time.monotonic() - began < PARTING  # no rank waits in vain for another one at the end
    assert content_differences(whole, tmp_path / "made") == []
