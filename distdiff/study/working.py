"""What a further process of a study does (see `workers.py`): makes portions that nobody has taken, the last ones first."""

import shutil
from collections.abc import Iterator
from pathlib import Path

from omegaconf import DictConfig

from distdiff.console.output import LOG, console
from distdiff.keys import TARGET
from distdiff.study.plan import StudyPlan
from distdiff.study.portions import Claims, Portion, portions_of
from distdiff.study.rows import needs_generator
from distdiff.study.study import Study
from distdiff.study.workers import Report
from distdiff.tracking.recorded import RecordedLogger


def work(config: DictConfig, run_dir: Path, folder: Path, number: int) -> None:
    """Makes the images and the classifiers of all portions that are left, as the process with this `number`, from 1 on.

    `folder` is that of the processes' `Claims`, to which this one also writes its reports, and what it prints and logs.
    """
    study, claims = Study(config, run_dir), Claims(folder)
    timer = study.tools.timer
    with console.silent():
        plan = study.plan()
    for portion in in_turn(plan, study, number):
        with claims.taken_if_left(portion) as is_left:
            if is_left:
                records = claims.records(portion)
                # A process that was lost while it made this portion may have left some.
                shutil.rmtree(records, ignore_errors=True)
                records.mkdir()
                with console.logging_to(records / LOG):
                    study.make(portion, plan, None if config.logger[TARGET] is None else RecordedLogger(records))
                Report(timer.seconds, timer.made, study.tools.made).write(folder, number)


def in_turn(plan: StudyPlan, study: Study, number: int) -> Iterator[Portion]:
    """The portions that need the generator, then the others, each of them from the last to the first.

    Each further process begins one data seed earlier than the one before: two processes that begin with one data seed would
    wait for each other's guide. Portions without the generator are usually the shortest. They are left to the end, so that no
    process waits long for what another one has begun last.
    """
    seeds = plan.seeds[::-1]
    begin = (number - 1) % len(seeds)
    rows = study.tools.rows
    portions = [
        portion for of_seed in [*seeds[begin:], *seeds[:begin]] for portion in reversed(portions_of(of_seed, rows))
    ]
    return iter(sorted(portions, key=lambda portion: not any(needs_generator(rows[name]) for name in portion.rows)))
