"""The GPU script: each stage has its time, a failure shows in the exit status, and results are where they are said to be."""

import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest
from conftest import ROOT

SCRIPT = ROOT / "experiments" / "gpu" / "run.sh"
# Stands for Python: notes what it was to run, and does what a benchmark does.
STAND_IN = """#!/usr/bin/env bash
echo "$*" >> "$NOTES"
for word in "$@"; do case "$word" in hydra.run.dir=*) mkdir -p "${word#*=}"; echo '{}' > "${word#*=}/benchmark.json" ;; esac; done
case "$*" in *"$SLOW"*) sleep 60 ;; *"$BROKEN"*) exit 3 ;; esac
"""


def run(
    place: Path, *arguments: str, slow: str = "nothing", broken: str = "nothing", script: Path = SCRIPT
) -> subprocess.CompletedProcess[str]:
    """What the script does if `slow` (a word of a command) takes a minute, or `broken` fails."""
    stand_in = place / "python"
    stand_in.write_text(STAND_IN)
    stand_in.chmod(0o755)
    own = {"PYTHON": str(stand_in), "OUT": str(place / "out"), "NOTES": str(place / "notes"), "SLOW": slow}
    (place / "notes").touch()
    environment = os.environ | own | {"BROKEN": broken}
    return subprocess.run(
        [str(script), *arguments], capture_output=True, text=True, check=False, env=environment, timeout=60
    )


def written(place: Path) -> set[str]:
    return {path.name for path in (place / "out").iterdir()}


@pytest.fixture(autouse=True)
def _no_wheels() -> None:
    if (ROOT / ".whl").exists():
        pytest.skip("on_gpu.sh would install the wheels in .whl/")


def test_all_stages_run_on_the_device_and_leave_at_most_eight_files(tmp_path: Path) -> None:
    ended = run(tmp_path)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    tests, sd14, network, sdxl = (tmp_path / "notes").read_text().splitlines()
    assert "-m gpu --device cuda" in tests
    assert all("trainer=gpu" in line and "generator=random" in line for line in (sd14, sdxl))
    assert "generator.architecture=sd14 generator.resolution=512 generator.dtype=float16" in sd14
    assert "generator.architecture=sdxl generator.resolution=1024" in sdxl
    assert "network_speed.py --architecture sd14 --device cuda" in network
    assert written(tmp_path) == {"log.txt", "sd14-benchmark.json", "sdxl-benchmark.json"}
    assert len(written(tmp_path)) + len(["tests.xml", "sd14-benchmark.md", "sdxl-benchmark.md"]) <= 8


def test_a_dry_run_has_tiny_networks_on_the_cpu(tmp_path: Path) -> None:
    assert run(tmp_path, "--device", "cpu").returncode == 0
    noted = (tmp_path / "notes").read_text()
    assert "--device cpu" in noted
    assert "trainer=cpu" in noted
    assert "trainer=gpu" not in noted
    assert "sd14" not in noted.replace("/sd14", "")


def test_a_stage_that_fails_is_named_and_the_others_still_run(tmp_path: Path) -> None:
    ended = run(tmp_path, broken="pytest")
    assert ended.returncode == 1
    assert "tests: FAILED: exit status 3" in ended.stdout
    assert "sd14: ok" in ended.stdout
    assert "sdxl: ok" in ended.stdout


def test_a_run_without_time_begins_nothing_and_fails(tmp_path: Path) -> None:
    ended = run(tmp_path, "--minutes", "0")
    assert ended.returncode == 1
    assert ended.stdout.count("left out, no time") == 4
    assert (tmp_path / "notes").read_text() == ""


def test_a_stage_beyond_its_time_is_stopped(tmp_path: Path) -> None:
    folder = tmp_path / "experiments" / "gpu"
    shutil.copytree(SCRIPT.parent, folder)
    hurried = folder / "run.sh"
    hurried.write_text(SCRIPT.read_text().replace("limit_sd14=240", "limit_sd14=2").replace("least=20", "least=1"))
    begun = time.monotonic()
    ended = run(tmp_path, "--only", "sd14", slow="architecture=sd14", script=hurried)
    assert ended.returncode == 1
    assert "sd14: FAILED: stopped after 2 s" in ended.stdout
    assert time.monotonic() - begun < 30


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--device", "tpu"], "--device tpu is not allowed: one of cuda, cpu"),
        (["--minutes", "x"], "--minutes x is not allowed: a whole number"),
        (["--minutes"], "--minutes needs a value"),
        (["--only", "tests,all"], "--only all is not allowed: of tests, sd14, network, sdxl"),
        (["cpu"], "cpu is not allowed: one of --device, --minutes, --only"),
    ],
)
def test_a_mistake_in_an_option_is_one_line(arguments: list[str], words: str, tmp_path: Path) -> None:
    ended = run(tmp_path, *arguments)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr == f"run.sh: {words}\n"
