"""Multiruns in several processes: each job has its ranks, its directory, and its failure is known."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import forked
from conftest import ROOT


def test_a_multirun_of_two_ranks_a_job_trains_a_classifier_in_each(tmp_path: Path) -> None:
    command = [sys.executable, "experiments/train.py", "-m", "trainer=ddp_cpu", "train.steps=60", "seed=0,1"]
    command += ["logger=none", f"paths.output_dir={tmp_path}"]
    done = forked.run(command, forks_ranks=True)
    assert done.returncode == 0, done.stderr
    (sweep,) = (tmp_path / "train/multirun").iterdir()
    results = [json.loads((sweep / str(job) / "results.json").read_text()) for job in range(2)]
    assert [result["seed"] for result in results] == [0, 1]
    assert all(result["accuracy"] > 0.3 for result in results)  # 0.1 by chance
    stages = [json.loads(path.read_text()) for path in (tmp_path / "cache/classifiers").glob("*/ingredients.json")]
    assert [stage["ranks"] for stage in stages] == [2, 2]


def test_jobs_in_a_launchers_processes_have_their_directories_and_their_failures_are_known(tmp_path: Path) -> None:
    """Hydra's joblib launcher: two jobs at once, of which the second trains on what is not there."""
    command = [sys.executable, "experiments/train.py", "-m", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2"]
    command += ["train.expanded=null,missing", "train.steps=3", "logger=none", f"paths.output_dir={tmp_path}"]
    # joblib cannot start processes in a forked one. In this one it would leave damage behind: reading what its processes
    # return, cloudpickle overwrites our dataclasses, after which no configuration can be composed.
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.strip() == "distdiff: missing is no expanded dataset: there is no such folder"
    (sweep,) = (tmp_path / "train/multirun").iterdir()
    assert (sweep / "0/results.json").is_file()
    assert "missing is no expanded dataset" in (sweep / "1/log.txt").read_text()
    with open(sweep / "sweep.csv", newline="") as file:
        first, second = csv.DictReader(file)
    assert float(first["accuracy"]) == json.loads((sweep / "0/results.json").read_text())["accuracy"]
    assert (second["train.expanded"], second["accuracy"]) == ("missing", "")
    assert second["error"] == "missing is no expanded dataset: there is no such folder"
