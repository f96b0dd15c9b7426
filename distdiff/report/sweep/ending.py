"""Hydra's callback that ends a multirun with a page on its jobs. It imports nothing heavy: every command loads it."""

from pathlib import Path

from distdiff.cli.endings import Conclusion
from distdiff.console.output import console
from distdiff.errors import first_line
from distdiff.tracking.sweep import SweptJobs


class SweepPage(Conclusion):
    """Writes `sweep.html` and `sweep.svg` into the multirun's directory, also if jobs failed or the multirun was stopped.

    If that fails, it says so in one line: the jobs, what they wrote and the exit status stay as they are.
    """

    def conclude(self, command: str, directory: Path) -> None:
        try:
            jobs = SweptJobs(directory).read()
            if not any(job.figures or job.error for job in jobs):
                return
            from distdiff.report.sweep.page import write_sweep  # imported only now, because it takes a second

            console.print(f"page     {write_sweep(command, directory, jobs)}")
        except OSError as error:
            console.print(f"{directory}: cannot write the page of the sweep there ({error.strerror or error})")
        except Exception as error:  # a bug of ours: the results matter more than the page on them
            console.print(f"the page of the sweep could not be made ({type(error).__name__}: {first_line(error)})")
