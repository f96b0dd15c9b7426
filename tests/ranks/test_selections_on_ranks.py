"""Two ranks select what one process selects, also where more candidates are asked for on the way."""

import subprocess
import sys
from pathlib import Path

from conftest import ROOT, compose, small_overrides

from distdiff.commands.expand import expand
from distdiff.store.comparison import content_differences


def test_two_ranks_keep_what_one_process_keeps(pipeline_folder: Path, image_folder: Path, tmp_path: Path) -> None:
    selection = ["selection=consistency", "selection.ratio=1", "selection.max_ratio=3", "guidance=none"]
    selection += ["expansion.sources=hard"]  # which the ranks have to agree on
    selection += ["encoder.guide.copies=1"]  # which the ranks make first
    given = [
        *small_overrides(pipeline_folder, tmp_path),
        "dataset=imagefolder",
        f"dataset.root={image_folder}",
        *selection,
    ]
    whole = expand(compose("expand", [*given, f"expansion.output_dir={tmp_path}/whole"]), tmp_path)
    ranks = ["trainer=ddp_cpu", f"expansion.output_dir={tmp_path}/made", "expansion.batch_size=3"]
    command = [sys.executable, "experiments/expand.py", *given, *ranks]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert "more candidates for" in done.stdout
    assert content_differences(whole, tmp_path / "made") == []
