"""A benchmark runs the real expansion for each row in turn, keeps no images, and says how rows compare."""

import json
import math
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import compose
from scipy import stats

from distdiff.benchmark.config import BENCHMARK
from distdiff.benchmark.measuring import Contender, RowSpeed, measure
from distdiff.benchmark.page import benchmark_page
from distdiff.benchmark.results import BenchmarkResults
from distdiff.commands.benchmark import benchmark
from distdiff.errors import Stopped, UserError, onward
from distdiff.methods.img2img import Img2ImgSampler

ROWS = "benchmark.rows={none: [guidance=none], guided: [], alone: [expansion.batch_size=1]}"


@pytest.fixture
def given(small_run: list[str], image_folder: Path) -> list[str]:
    data = ["dataset=imagefolder", f"dataset.root='{image_folder}'"]
    without = ("expansion.factor",)
    return [item for item in small_run if not item.startswith(without)] + data + ["expansion.batch_size=4"]


def test_every_row_is_timed_and_divided_and_no_image_is_kept(given, tmp_path: Path, capsys) -> None:
    tmp_path.joinpath("run").mkdir()
    benchmark(compose("benchmark", [*given, ROWS, "benchmark.repeats=2", "benchmark.images=6"]), tmp_path / "run")
    found = json.loads((tmp_path / "run/benchmark.json").read_text())
    assert (found["baseline"], found["device"], found["resolution"]) == ("none", "cpu", 32)
    rows = {row["name"]: row for row in found["rows"]}
    assert {name: (row["batch_size"], row["images"]) for name, row in rows.items()} == {
        "none": (4, 8),
        "guided": (4, 8),
        "alone": (1, 6),
    }
    for row in rows.values():
        assert len(row["runs"]) == 2
        assert min(row["runs"]) <= row["images_per_second"] <= max(row["runs"])
        assert row["peak_memory"] is None or row["peak_memory"] > 50e6  # Python and torch take more than that
        assert {"network", "decoder", "encoder", "image files", "writing", "rest"} <= row["seconds_per_image"].keys()
    assert ("network backward" in rows["guided"]["seconds_per_image"], rows["none"]["times_baseline"]["mean"]) == (
        True,
        1,
    )
    assert "network backward" not in rows["none"]["seconds_per_image"]
    assert rows["guided"]["times_floor"] > rows["none"]["times_floor"] > 1
    assert rows["guided"]["times_floor"] == pytest.approx(rows["alone"]["times_floor"])
    assert rows["none"]["network_calls"] == 3  # strength 0.5 of 6 steps
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == [
        "benchmark.json",
        "benchmark.md",
        "benchmark.png",
    ]
    assert not list((tmp_path / "outputs").glob("expanded/*"))
    assert "turn 2 of 2" in capsys.readouterr().out
    page = (tmp_path / "run/benchmark.md").read_text()
    assert all(f"\n| {name} | " in page for name in rows)


def test_without_rows_the_jobs_own_settings_are_measured(given, tmp_path: Path) -> None:
    tmp_path.joinpath("run").mkdir()
    keys = ["benchmark.rows={}", "benchmark.repeats=1", "benchmark.images=2", "benchmark.parts=false"]
    benchmark(compose("benchmark", [*given, "guidance=mpgd", *keys]), tmp_path / "run")
    (row,) = json.loads((tmp_path / "run/benchmark.json").read_text())["rows"]
    assert (row["name"], row["times_floor"], row["seconds_per_image"]) == ("mpgd", None, {})
    assert row["times_baseline"] == {"mean": 1, "low": None, "high": None}


def test_a_stopped_benchmark_keeps_no_image_and_says_that_it_begins_anew(given, tmp_path: Path, monkeypatch) -> None:
    def stopped(contender: Contender) -> None:
        contender.place.mkdir()
        contender.place.joinpath("image.png").touch()
        raise Stopped(signal.SIGTERM)

    tmp_path.joinpath("run").mkdir()
    monkeypatch.setattr(Contender, "warm_up", stopped)
    with pytest.raises(Stopped) as ended:
        benchmark(compose("benchmark", [*given, "benchmark.rows={}"]), tmp_path / "run")
    assert onward(ended.value) == "stopped by SIGTERM; no measurement is kept, and the same command begins anew"
    assert not any((tmp_path / "run").iterdir())


@pytest.mark.parametrize(
    ("keys", "message"),
    {
        "benchmark.rows={a: [logger=none]}": "benchmark.rows.a: logger=none is not allowed: rows share logger",
        "benchmark.rows={a: 3}": r"benchmark.rows.a=3 is not allowed: a list of overrides",
        "benchmark.rows=[a]": r"benchmark.rows=\['a'\] is not allowed: 'benchmark.rows=",
        "benchmark.rows={a: [guidance.roh=1]}": r"benchmark.rows.a: guidance.roh=1 .*guidance.rho",
        "benchmark.baseline=nne": "benchmark.baseline=nne is not allowed: one of none, chosen, published, .*mean none",
        "expansion.factor=3": "expansion.factor=3 .*benchmark.images",
    }.items(),
)
def test_a_mistake_is_one_line(keys: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as raised:
        compose("benchmark", [keys])
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("keys", "rows"),
    [
        ([], ["none", "chosen", "published", "published_in_batches"]),
        (["guidance=tfg", "guidance.mu=2"], ["none", "chosen", "published", "published_in_batches"]),
        (["method=text2img"], ["text2img"]),  # it knows no guidance, as the next
        (["method=augmentation"], ["randaugment"]),
    ],
)
def test_the_default_rows_suit_what_the_command_line_chooses(keys: list[str], rows: list[str]) -> None:
    config = compose("benchmark", keys)
    assert list(config.options.rows) == rows
    assert [row.guidance.name for row in config.options.rows.values()][:1] in (["none"], ["direct"])


def test_a_selection_is_said_not_to_be_measured() -> None:
    assert list(BENCHMARK.warn(compose("benchmark", []))) == []
    (said,) = BENCHMARK.warn(compose("benchmark", ["selection=energy"]))
    assert said.startswith("selection=energy is not measured")


def test_rows_take_turns_in_an_order_that_is_reversed_each_time() -> None:
    calls: list[str] = []

    class Noting(Contender):
        def __init__(self, name: str) -> None:
            self.speed = RowSpeed(name, [], 1, 1, rates=[1.0])

        def warm_up(self) -> None:
            calls.append(f"warm {self.speed.name}")

        def time(self) -> None:
            calls.append(self.speed.name)

        def divide(self) -> None:
            calls.append(f"parts {self.speed.name}")

    measure([Noting("a"), Noting("b")], repeats=3, parts=True, say=lambda line: None)
    assert calls == ["warm a", "warm b", "a", "b", "b", "a", "a", "b", "parts a", "parts b"]


def test_out_of_memory_is_said_by_the_batch_size_of_the_row(given, tmp_path: Path, monkeypatch) -> None:
    sampled = Img2ImgSampler.forward

    def small(self, items):
        if len(items) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return sampled(self, items)

    monkeypatch.setattr(Img2ImgSampler, "forward", small)
    tmp_path.joinpath("run").mkdir()
    keys = ["benchmark.rows={}", "benchmark.repeats=1", "benchmark.images=4", "benchmark.parts=false"]
    benchmark(compose("benchmark", [*given, *keys]), tmp_path / "run")
    (row,) = json.loads((tmp_path / "run/benchmark.json").read_text())["rows"]
    assert row["batch_size"] == 2


def test_the_ratio_is_that_of_paired_turns_with_students_interval() -> None:
    base, slow = RowSpeed("none", [], 1, 1, [10.0, 20.0, 40.0]), RowSpeed("slow", [], 1, 1, [5.0, 11.0, 19.0])
    results = BenchmarkResults([base, slow], "none", "cpu", 32)
    ratio = results.times_baseline(slow)
    logs = [math.log(10 / 5), math.log(20 / 11), math.log(40 / 19)]
    low, high = stats.ttest_1samp(logs, 0).confidence_interval(0.95)
    assert (ratio.mean, ratio.low, ratio.high) == pytest.approx(
        (math.exp(sum(logs) / 3), math.exp(low), math.exp(high))
    )
    assert results.times_baseline(base).mean == 1
    assert "| slow | 1 | 11 | 1.97 [" in benchmark_page(results, "distdiff benchmark")


PEAKS = """
import torch
from distdiff.benchmark.memory import PeakMemory

peak, later = PeakMemory(torch.device("cpu")), PeakMemory(torch.device("cpu"))
with peak.measured():
    pass
before = peak.bytes
with peak.measured():
    torch.ones(100_000_000).sum()  # 400 MB
with later.measured():
    pass
print(before, peak.bytes, later.bytes)
"""


def test_peak_memory_is_the_blocks_own() -> None:
    """In a process of its own, because other tests may give memory back at any time."""
    said = subprocess.run([sys.executable, "-c", PEAKS], check=True, capture_output=True, text=True).stdout
    if "None" in said:
        pytest.skip("this system does not tell a process its peak of memory")
    before, with_tensor, later = map(int, said.split())
    assert with_tensor - before > 250e6
    assert later < with_tensor - 250e6
