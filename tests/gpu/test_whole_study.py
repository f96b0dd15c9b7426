"""A small study from the command to the report, on the device."""

import json
from pathlib import Path

import pytest
import torch
from on_device import RANDOM, trainer
from scripts import run_here

pytestmark = pytest.mark.gpu


def test_a_study_runs_from_the_command_to_the_report(
    device: torch.device, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [trainer(device), *RANDOM, "generator.num_steps=4", "dataset.per_class=1", "expansion.factor=1"]
    given += ["study.methods=[original,direct]", "study.seeds=1", "train.steps=3", "measure.judge_steps=3"]
    given += ["encoder.guide.steps=3", "logger=none", f"paths.output_dir={tmp_path}", f"hydra.run.dir={tmp_path}/run"]
    ended = run_here("run", given, capsys)
    assert ended.status == 0, ended.out + ended.err
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert [row["method"] for row in results["rows"]] == ["original", "direct"]
    assert results["rows"][1]["images_per_second"] > 0
    assert (tmp_path / "run" / "report.html").is_file()
