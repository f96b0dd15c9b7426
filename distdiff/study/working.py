"""What a further process of a study does (see `workers.py`): makes portions that nobody has taken, the last ones first."""

from collections.abc import Iterator
from pathlib import Path

from omegaconf import DictConfig

from distdiff.study.plan import StudyPlan
from distdiff.study.portions import Claims, Portion, portions_of
from distdiff.study.study import Study
from distdiff.study.workers import write_report
from distdiff.tracking.recorded import RecordedLogger


def work(config: DictConfig, run_dir: Path, folder: Path, number: int) -> None:
    """Makes the images and the classifiers of all portions that are left, as the process with this `number`, from 1 on.

    `folder` is that of the processes' `Claims`, to which this one also writes its reports and what it logs.
    """
    study, claims = Study(config, run_dir), Claims(folder)
    plan = study.plan()
    for portion in in_turn(plan, study, number):
        with claims.left(portion) as is_left:
            if is_left:
                study.make(portion, plan, RecordedLogger(claims.records(portion)))
                write_report(folder, number, study.timer, study.made)


def in_turn(plan: StudyPlan, study: Study, number: int) -> Iterator[Portion]:
    """All portions, from the last to the first. Each further process begins one data seed earlier than the one before.

    Two processes that begin with one data seed would wait for each other's guide.
    """
    seeds = plan.seeds[::-1]
    begin = (number - 1) % len(seeds)
    for of_seed in [*seeds[begin:], *seeds[:begin]]:
        yield from reversed(portions_of(of_seed, study.rows))
