"""Expansions with the guidance methods that compare new images with real ones, as a command makes them."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest
from small_expansion import contents, pixels, small_jobs

from distdiff.expansion.job import ExpansionJob

# One that needs features of the real images, one that needs their latents, and one that makes copies together.
KINDS = ("chamfer", "modes", "particles")


@pytest.fixture
def job(small_run: list[str], image_folder: Path, tmp_path: Path) -> Callable[..., ExpansionJob]:
    return small_jobs(small_run, image_folder, tmp_path)


@pytest.mark.parametrize("name", KINDS)
def test_a_rival_runs_by_its_name_and_a_restart_makes_the_lost_images_again(job, name: str) -> None:
    """Other batches make a lost image again within one level; all others stay the files that they are."""
    made = job(f"guidance={name}", "expansion.factor=2")
    made.run("test")
    before, shown = contents(made.path), pixels(made.path)
    rows = pyarrow.parquet.read_table(made.path / "metadata.parquet").to_pylist()
    assert len(rows) == len(before) == made.size
    assert all(row["gradient_finite"] and np.isfinite(row["energy_before"]) for row in rows)
    lost = sorted(before)[3]
    (made.path / lost).unlink()
    again = job(f"guidance={name}", "expansion.factor=2", "expansion.batch_size=3")
    assert again.fingerprint == made.fingerprint
    again.run("test")
    assert sorted(contents(made.path)) == sorted(before)
    later = pixels(made.path)
    assert max(np.abs(later[file] - shown[file]).max() for file in shown) <= 1
