"""Hydra's callback that ends a multirun of W&B runs with a run of its own. It imports nothing heavy: every command loads it."""

from pathlib import Path

from distdiff.cli.endings import Conclusion
from distdiff.console.output import console
from distdiff.errors import first_line
from distdiff.tracking.run_ids import kept_id
from distdiff.tracking.sweep import SweptJobs


class SweepRun(Conclusion):
    """Logs the figures of a multirun to a W&B run of the job type `sweep`, in the group of the jobs.

    Makes none if no job had a W&B run. If it fails, it says so in one line: the jobs and the exit status stay as they are.
    """

    def conclude(self, command: str, directory: Path) -> None:
        jobs = SweptJobs(directory).read()
        if not any(kept_id(Path(job.directory)) for job in jobs):
            return
        try:
            from distdiff.report.sweep.dashboard import log_sweep  # imported only now, because it takes seconds

            log_sweep(command, directory, jobs)
        except Exception as error:
            console.print(f"W&B      the run of the sweep could not be made: {first_line(error)}")
