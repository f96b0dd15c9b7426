"""A further process of a job: `python -m distdiff.cli.worker <folder> <number>`, as `study/workers.py` starts it."""

import json
import sys
from importlib import import_module
from pathlib import Path

from omegaconf import OmegaConf

from distdiff.cli.importing import import_as_told
from distdiff.cli.member import end_with_the_launcher
from distdiff.cli.performing import end_now
from distdiff.console.output import console
from distdiff.console.quiet import quiet_environment, quiet_libraries
from distdiff.errors import Stopped, UserError
from distdiff.ranks.launcher import JOB


def main() -> None:
    """Runs the task of the job file in `<folder>`, quietly, as the worker with this `<number>`.

    The task is a function, `module:function`, of the configuration, the run's directory, the folder and the number.
    """
    folder, number = Path(sys.argv[1]), int(sys.argv[2])
    end_with_the_launcher()
    quiet_environment()
    import_as_told()
    console.quiet = True
    job = json.loads((folder / JOB).read_text(encoding="utf-8"))
    module, function = job["task"].split(":")
    task = getattr(import_module(module), function)
    quiet_libraries()
    config = OmegaConf.create(job["config"])  # checked and completed by the process that started this one
    OmegaConf.set_struct(config, True)
    status = 0
    try:
        task(config, Path(job["run_dir"]), folder, number)
    except UserError as error:
        print(error, file=sys.stderr)
        status = error.exit_status
    except Stopped as stop:
        status = stop.exit_status
    end_now(status)


if __name__ == "__main__":
    main()
