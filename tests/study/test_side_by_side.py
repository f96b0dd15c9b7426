"""`study.processes`: further processes make rows, and the study has the same results, made once."""

import os
import shutil
import signal
from contextlib import suppress
from pathlib import Path
from threading import Event, Thread

import forked
import psutil
import pytest
import torch
from conftest import compose_once
from lightning.pytorch.loggers import CSVLogger
from omegaconf import OmegaConf
from waiting import wait_for

from distdiff.classification.training import ClassifierTrainer
from distdiff.commands.run import WORK
from distdiff.console.whole import Step, Whole
from distdiff.errors import UserError
from distdiff.expansion.job import ExpansionJob
from distdiff.metrics.judge import JudgeTrainer
from distdiff.store.reading import read_expanded
from distdiff.study import workers, working
from distdiff.study.plan import SeedPlan
from distdiff.study.portions import Claims, Portion, portions_of
from distdiff.study.results import StudyResults
from distdiff.study.runs import RunResult
from distdiff.study.study import Study
from distdiff.study.workers import Report, Workers, number_of_processes
from distdiff.tracking.loggers import log_recorded
from distdiff.tracking.recorded import RecordedLogger

STUDY = [
    *("study.seeds=2", "train.steps=3", "measure.judge_steps=2", "measure.metrics=[]"),
    *("dataset=imagefolder", "dataset.per_class=2", "classifier.input_size=16", "guidance.rho=1"),
]


@pytest.fixture
def small(small_run: list[str], image_folder: Path) -> list[str]:
    return [*small_run, *STUDY, "logger=csv", f"dataset.root='{image_folder}'"]


def run(small: list[str], place: Path, *overrides: str) -> tuple[StudyResults, dict[str, bytes]]:
    """A study below `place` that logs to files there, and all of its images, by the name of their row, seed and key."""
    run_dir = place / "run"
    run_dir.mkdir(parents=True)
    study = Study(compose_once("run", [*small, f"paths.output_dir={place}", *overrides]), run_dir)
    plan = study.plan()
    found = study.run(plan, CSVLogger(run_dir, name="", version="metrics"), WORK)
    images = {}
    for of_seed in plan.seeds:
        for name, job in of_seed.jobs.items():
            each = read_expanded(job.path, None, job.contents)
            images |= {f"{name}{of_seed.seed}{key}": each.file(index).read() for index, key in enumerate(each.keys)}
    return found, images


def curves(place: Path) -> dict[str, list[str]]:
    """The lines of each stage's metrics without those that tell time or memory."""
    found = {}
    for path in sorted((place / "run/metrics").rglob("metrics.csv")):
        header, *lines = (line.split(",") for line in path.read_text().splitlines())
        told = [column for column, name in enumerate(header) if name not in ("images_per_second", "memory_gb")]
        found[str(path.relative_to(place))] = [",".join(line[column] for column in told) for line in (header, *lines)]
    return found


@pytest.fixture
def began(monkeypatch: pytest.MonkeyPatch) -> list[Workers]:
    """The studies that started further processes. Each goes on once these are done with what they find to do."""
    found: list[Workers] = []
    own = Workers.begin

    def begin(self: Workers) -> None:
        own(self)
        if self not in found and self.processes > 1:
            found.append(self)
            wait_for(lambda: all(process.poll() is not None for process in self._others), 120)

    monkeypatch.setattr(Workers, "begin", begin)
    return found


def test_two_processes_find_what_one_finds_and_log_the_same(
    small: list[str], tmp_path: Path, began: list[Workers], monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    best = ["study.best.steps=[2,4]", "study.best.augmentations=[default]"]
    small = [*small, "study.methods=[original,original_best,none,none+coverage,direct]", *best]
    alone, images = run(small, tmp_path / "alone", "study.processes=1")
    assert not began
    printed = lines_of(capsys)
    monkeypatch.setattr(workers, "start", forked.start_member)
    trained, own = [], ClassifierTrainer._fit
    monkeypatch.setattr(ClassifierTrainer, "_fit", lambda self, *given: trained.append(self) or own(self, *given))
    monkeypatch.setattr(ExpansionJob, "_make", lambda *_: pytest.fail("the other process makes the images"))
    reports, add_to = [], Report.add_to
    monkeypatch.setattr(Report, "add_to", lambda report, *given: reports.append(report) or add_to(report, *given))
    together, others = run(small, tmp_path / "together", "study.processes=2")
    assert len(began) == 1
    assert len(trained) == 1  # the judge
    assert lines_of(capsys) == printed != []
    assert others == images
    for one, two in zip(alone.rows, together.rows, strict=True):
        for run_alone, run_together in zip(one.runs, two.runs, strict=True):
            assert told(run_alone) == told(run_together)
    assert curves(tmp_path / "together") == curves(tmp_path / "alone")
    assert len(curves(tmp_path / "alone")) > 10
    # what the other process made counts as made by the study
    assert together.found == alone.found
    assert len(together.made) == len(alone.made) == 6
    assert set(alone.timing) == set(together.timing)
    (report,) = reports
    assert report.made["train direct"] == 2
    assert together.timing["expand direct"] > report.seconds["expand direct"] > 0


def lines_of(capsys) -> list[str]:
    """The lines of rows that copied images of another row."""
    return sorted(line for line in capsys.readouterr().out.splitlines() if "another row" in line)


def told(run: RunResult) -> dict:
    """All that a run tells, without what depends on its place or on time."""
    measures = {name: value for name, value in run.measures.items() if name != "images_per_second"}
    return vars(run) | {"expanded": None, "measures": measures, "correct": run.correct.tolist()}


def test_a_lost_process_costs_a_line_and_nothing_else(
    small: list[str], tmp_path: Path, began: list[Workers], monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    monkeypatch.setattr(workers, "PROCESS", "distdiff.no_such_module")
    found, images = run(small, tmp_path / "place", "study.processes=2", "study.methods=[original,none]")
    assert len(began) == 1
    assert [len(row.runs) for row in found.rows] == [2, 2]
    assert images
    said = capsys.readouterr().out.replace("\n", "")
    path = tmp_path / "place/run/process-1.txt"
    assert f"warning: a process that worked on this study ended with status 1, {path} says why" in said
    assert said.count("warning") == 1
    assert "no_such_module" in path.read_text()


def test_runs_of_all_processes_are_in_the_table_before_the_first_reaches_them(
    small: list[str], tmp_path: Path, began: list[Workers], monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that half of a study is not lost with a cache that does not last."""
    monkeypatch.setattr(JudgeTrainer, "train", lambda *_: pytest.fail("the table is complete"))
    table = tmp_path / "runs.csv"
    own = Workers.begin

    def begin(self: Workers) -> None:
        own(self)
        assert len(table.read_text().splitlines()) == 1 + 2

    monkeypatch.setattr(Workers, "begin", begin)
    with pytest.raises(pytest.fail.Exception, match="the table is complete"):
        run(small, tmp_path, "study.processes=2", "study.methods=[original]", f"study.table={table}")


def test_what_is_found_in_the_cache_starts_no_process(small: list[str], tmp_path: Path, began: list[Workers]) -> None:
    config = compose_once("run", [*small, f"paths.output_dir={tmp_path}", "study.methods=[original,none]"])
    first = Study(config, tmp_path)
    first.run(first.plan())
    config.study.processes = 3
    again = Study(config, tmp_path)
    again.run(again.plan(), task=WORK)
    assert not began
    assert not any(again.tools.timer.made.values())


def test_the_number_of_processes(small: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = compose_once("run", small)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 6)
    monkeypatch.setattr(workers, "free_memory", lambda: 2**40)
    assert [number_of_processes(config, most) for most in (1, 3, 4, 100)] == [1, 3, 3, 6]  # with 6, 2, 2 and 1 threads
    monkeypatch.setattr(workers, "free_memory", lambda: 9 * 2**30)
    assert number_of_processes(config, 100) == 2
    monkeypatch.setattr(workers, "free_memory", lambda: 2**30)
    assert number_of_processes(config, 100) == 1
    monkeypatch.setattr(workers, "free_memory", lambda: 2**40)
    for alone in ({"generator": {"resolution": 512}}, {"trainer": {"max_time": "00:00:01:00"}}):
        assert number_of_processes(OmegaConf.merge(config, alone), 100) == 1
    monkeypatch.setattr(workers, "trainer_device", lambda _: torch.device("cuda"))
    assert number_of_processes(config, 100) == 1
    config.study.processes = 9
    assert [number_of_processes(config, most) for most in (0, 1, 4, 100)] == [1, 1, 4, 9]
    monkeypatch.setattr(workers, "world", lambda: type("World", (), {"size": 2}))
    assert number_of_processes(config, 100) == 1


def test_free_memory_is_that_of_the_container(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "LIMITS", (str(tmp_path / "max"), str(tmp_path / "limit"), str(tmp_path / "none")))
    (tmp_path / "max").write_text("max\n")
    (tmp_path / "limit").write_text("12345\n")
    assert workers.free_memory() == 12345
    (tmp_path / "limit").unlink()
    assert 2**27 < workers.free_memory() <= psutil.virtual_memory().total


def test_rows_that_share_images_are_one_portion_which_one_process_takes(small: list[str], tmp_path: Path) -> None:
    config = compose_once("run", [*small, "study.methods=[original,none,none_best,direct]"])
    study = Study(config, tmp_path)
    zero, one = study.plan().seeds
    portions = portions_of(zero, study.tools.rows)
    assert [portion.rows for portion in portions] == [("original",), ("none", "none_best"), ("direct",)]
    assert len({portion.name for portion in (*portions, *portions_of(one, study.tools.rows))}) == 6
    (finished,) = portions_of(SeedPlan(0, zero.data, zero.jobs, {**zero.finished, "none": [None]}), study.tools.rows)[
        1:2
    ]
    assert finished.name == portions[1].name

    here, there = Claims(tmp_path), Claims(tmp_path)
    _, shared, last = portions
    assert here.take(shared)
    assert not there.take(shared, patience=0)
    with there.taken_if_left(shared) as is_left:
        assert not is_left
    assert not there.is_done(shared)
    here.done(shared)
    with there.taken_if_left(shared) as is_left:
        assert not is_left
    with there.taken_if_left(last) as is_left:
        assert is_left
        assert not here.take(last, patience=0)
    assert here.is_done(last)
    with pytest.raises(KeyError), there.taken_if_left(portions[0]):
        raise KeyError
    with there.taken_if_left(portions[0]) as is_left:
        assert is_left
        raise UserError("it fails again wherever it is made")
    assert not here.is_done(portions[0])
    with Claims(tmp_path).taken_if_left(portions[0]) as is_left:
        assert not is_left
    assert not here.is_done(portions[0])
    assert here.take(portions[0], patience=0)  # and reports the error


SLEEPER = """
import sys, time
from pathlib import Path
from distdiff.cli.member import end_with_the_parent
if {notices}:
    end_with_the_parent()
Path(sys.argv[1], "begun").touch()
time.sleep(100)  # much longer than the test, which ends it
"""


@pytest.mark.parametrize("ending", ["left", "killed"])
def test_no_process_outlives_the_study_that_started_it(tmp_path: Path, monkeypatch, ending: str) -> None:
    """A study that ends in any way of its own ends the others by a signal; that it was killed is what these notice."""
    (tmp_path / "sleeper.py").write_text(SLEEPER.format(notices=ending == "killed"))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(workers, "PROCESS", "sleeper")
    config = OmegaConf.create({"study": {"seeds": 1, "methods": ["original", "none"], "rows": None, "processes": 3}})
    portions = [Portion(SeedPlan(0, None), (name,), name) for name in ("original", "none")]
    if (study := os.fork()) == 0:
        try:
            with Workers(config, tmp_path, portions, Whole(()), WORK, 3) as begun:
                begun.begin()
                wait_for((begun.folder / "begun").exists, 120)
                (tmp_path / "told").write_text(f"{begun.folder} {' '.join(str(each.pid) for each in begun._others)}")
                if ending == "killed":
                    os.kill(os.getpid(), signal.SIGKILL)
        finally:
            os._exit(5)
    status = os.waitstatus_to_exitcode(os.waitpid(study, 0)[1])
    assert status == (5 if ending == "left" else -signal.SIGKILL)
    folder, pid = (tmp_path / "told").read_text().split()
    wait_for(lambda: not is_running(int(pid)), 20)
    assert Path(folder).exists() == (ending == "killed")
    shutil.rmtree(folder, ignore_errors=True)


def is_running(pid: int) -> bool:
    """Whether there is such a process; one that has ended and for whose status nobody has asked does not run."""
    with suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    return False


def test_what_another_process_is_making_comes_last(tmp_path: Path) -> None:
    config = OmegaConf.create({"study": {"processes": 2}})
    portions = [Portion(SeedPlan(0, None), rows, rows[0]) for rows in (("a",), ("b", "d"), ("c",))]
    rows = [(0, name) for name in ("a", "b", "c", "d", "finished before")]
    with Workers(config, tmp_path, portions, Whole(()), WORK, 3) as own:
        made, taken, ended = [], Event(), Event()

        def make() -> None:
            with Claims(own.folder).taken_if_left(portions[1]):
                taken.set()
                ended.wait(60)

        other = Thread(target=make)
        other.start()
        assert taken.wait(60)
        for _, row in own.in_turn(rows):
            made.append(row)
            if row == "finished before":
                assert [own.claims.is_done(portion) for portion in portions] == [True, False, True]
                ended.set()
            if row == "b":
                assert own.claims.is_done(portions[1])
                assert own.claims.has(portions[1])
        assert made == ["a", "c", "finished before", "b", "d"]
        assert not any(map(own.claims.has, portions))
        other.join()


def test_further_processes_leave_what_needs_no_generator_to_the_end(small: list[str], tmp_path: Path) -> None:
    """Of two data seeds; the second further process begins with the first of them."""
    keys = ["study.methods=[original,randaugment,none,chosen]", f"paths.output_dir={tmp_path}"]
    study = Study(compose_once("run", [*small, *keys]), tmp_path)
    plan = study.plan()
    for number, (one, other) in ((1, (1, 0)), (2, (0, 1))):
        order = [(portion.of_seed.seed, *portion.rows) for portion in working.in_turn(plan, study, number)]
        assert order[:4] == [(one, "direct"), (one, "none"), (other, "direct"), (other, "none")]
        assert order[4:] == [(seed, name) for seed in (one, other) for name in ("randaugment", "original")]


def test_of_what_a_lost_process_recorded_only_whole_lines_are_repeated(tmp_path: Path) -> None:
    recorder = RecordedLogger(tmp_path / "records")
    for place in ("train/none/seed0", "train/direct/seed0"):
        for step in range(3):
            recorder.of_stage(place).log_metrics({"loss": 1 / (step + 1)}, step)
    lines = tmp_path / "records/logged.jsonl"
    lines.write_text(lines.read_text()[:-9])
    log_recorded(tmp_path / "records", CSVLogger(tmp_path, name="", version="metrics"))
    log_recorded(tmp_path / "nothing", CSVLogger(tmp_path, name="", version="metrics"))
    found = {path.parts[-3]: path.read_text().split() for path in tmp_path.rglob("metrics.csv")}
    assert found["none"] == ["loss,step", "1.0,0", "0.5,1", "0.3333333333333333,2"]
    assert found["direct"] == ["loss,step", "1.0,0", "0.5,1"]


def test_the_time_left_is_shared_by_the_processes_and_leaves_out_what_others_made() -> None:
    now = [0.0]
    names = [f"seed {seed}: none: {stage}" for seed in range(3) for stage in ("expand", "measure")]
    steps = [Step(name, (name.split(": ")[-1],), 10, counted="measure" not in name) for name in names]
    whole = Whole(steps, lambda: now[0])
    for name, seconds in zip(names[:2], (8, 2), strict=True):
        with whole.step(name):
            now[0] += seconds
            if "expand" in name:
                whole.count(type("Bar", (), {"before": 0, "done": 10, "elapsed": seconds}))
    assert whole.remaining() == 20
    whole.processes = 2
    assert whole.remaining() == 12  # the first process alone measures
    whole.settle("seed 2: none: ")
    assert whole.remaining() == 8
