"""The commands as a user runs them, on a random pipeline and few steps."""

import csv
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import datasets
import numpy as np
import pytest
from conftest import ROOT
from scipy import stats
from scripts import run_here


def run(script: str, *arguments: str, expect: int = 0) -> str:
    result = subprocess.run(
        [sys.executable, f"experiments/{script}.py", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert result.returncode == expect, result.stdout + result.stderr
    return without_noise(result.stdout + result.stderr)


def without_noise(said: str) -> str:
    for noise in ("Warning", "warn", "Traceback", "deprecat"):
        assert noise not in said, said
    return said


@pytest.fixture
def run_in_process(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """As `run`, in this process: for commands that a process of their own runs elsewhere."""

    def run(script: str, *arguments: str, expect: int = 0) -> str:
        ended = run_here(script, list(arguments), capsys)
        assert ended.status == expect, ended.out + ended.err
        return without_noise(ended.out + ended.err)

    return run


STUDY = ["study.seeds=2", "measure.judge_steps=3", "train.steps=5"]  # not the 3 of the guide, which is another


def test_the_whole_study_and_a_sweep_that_reuses_it(small_run: list[str], run_in_process, tmp_path: Path) -> None:
    arguments = [argument for argument in small_run if argument != "logger=none"] + STUDY
    printed = run("run", *arguments)
    (run_dir,) = (tmp_path / "outputs" / "run").iterdir()
    results = json.loads((run_dir / "results.json").read_text())
    methods = ["original", "randaugment", "none", "transform_official", "direct"]
    assert [row["method"] for row in results["rows"]] == methods
    for row in results["rows"]:
        assert len(row["accuracy"]) == 2
        assert row["num_train"] == (20 if row["method"] == "original" else 60)
        assert row["method"] in printed
    guided = results["rows"][-1]
    for name in (
        "frechet_distance",
        "label_consistency",
        "coverage",
        "images_per_second",
        "energy_before",
        "energy_after",
    ):
        assert guided[name] is not None
    unguided = results["rows"][methods.index("none")]
    by_seed = np.array(guided["accuracy"]) - np.array(unguided["accuracy"])
    half = stats.t.ppf(0.975, df=1) * by_seed.std(ddof=1) / np.sqrt(2)
    expected = {"low": by_seed.mean() - half, "mean": by_seed.mean(), "high": by_seed.mean() + half}
    assert {name: guided["difference_to_none"][name] for name in expected} == pytest.approx(expected)
    with open(run_dir / "results.csv") as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == 10
    for measure in ("frechet_distance", "label_consistency", "coverage"):
        values = [float(line[measure]) for line in lines if line["method"] == "direct"]
        assert sum(values) / 2 == pytest.approx(guided[measure])
    for folder in guided["expanded"]:
        assert len(datasets.load_dataset("imagefolder", data_dir=folder, split="train")) == 40
    page = (run_dir / "report.html").read_text()
    assert "data:image/png;base64," in page
    for reference in ('src="http', 'href="http', 'src="/', "url(http"):
        assert reference not in page
    assert list((run_dir / "wandb").glob("offline-run-*"))

    guides = sorted((tmp_path / "outputs" / "cache" / "classifiers").glob("[0-9a-f]*[0-9a-f]"))
    printed = run_in_process("run", "-m", "guidance.rho=0.1,1", "study.split=test", *arguments)
    assert ": guide" not in printed  # trained once, by the run above
    (sweep,) = (tmp_path / "outputs" / "run" / "multirun").iterdir()
    jobs = [json.loads((sweep / str(n) / "results.json").read_text()) for n in range(2)]
    for job in jobs:
        for row, first in zip(job["rows"][:-1], results["rows"][:-1], strict=True):
            assert row["accuracy"] == first["accuracy"]
    more = sorted((tmp_path / "outputs" / "cache" / "classifiers").glob("[0-9a-f]*[0-9a-f]"))
    assert len(more) - len(guides) == 4  # two strengths, two seeds, one downstream classifier each


def test_expand_then_measure_then_train(small_run: list[str], run_in_process, tmp_path: Path) -> None:
    run_in_process("expand", *small_run, "guidance=direct")
    (run_dir,) = (tmp_path / "outputs" / "expand").iterdir()
    expanded = run_dir / "expanded"
    assert expanded.is_symlink()
    outputs = f"paths.output_dir={tmp_path}/outputs"
    measured = run_in_process("measure", f"measure.expanded={expanded}", "measure.judge_steps=3", outputs)
    assert "label consistency ↑" in measured
    training = ["train.steps=3", "logger=none", outputs]
    assert "trained on 20" in run_in_process("train", *training)
    assert "trained on 60" in run_in_process("train", f"train.expanded={expanded}", *training)
    assert "trained on 100" in run_in_process("train", f"train.expanded=[{expanded},{expanded}]", *training)
    assert "no expanded dataset" in run_in_process("train", f"train.expanded={tmp_path}", *training, expect=2)


def test_a_failed_job_does_not_stop_the_others(small_run: list[str], run_in_process, tmp_path: Path) -> None:
    taken = tmp_path / "taken"
    taken.mkdir()
    (taken / "file").write_text("mine")
    printed = run_in_process("expand", "-m", f"expansion.output_dir={taken},{tmp_path}/free", *small_run, expect=1)
    assert "it holds other files" in printed
    assert (tmp_path / "free" / "metadata.parquet").is_file()


@pytest.mark.parametrize("arguments", [["trainer.devices=0"], ["trainer=gpu"]])
def test_a_device_that_is_not_there_is_one_line(arguments: list[str], small_run: list[str], run_in_process) -> None:
    import torch

    if arguments == ["trainer=gpu"] and torch.cuda.is_available():
        pytest.skip("there is a GPU")
    printed = run_in_process("expand", *small_run, *arguments, expect=2)
    (mistake,) = (line for line in printed.splitlines() if not line.startswith("expand: "))  # said as it begins
    assert mistake.startswith("distdiff: trainer")
