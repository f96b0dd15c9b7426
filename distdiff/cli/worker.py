"""A further process of a job: `python -m distdiff.cli.worker <folder> <number>`, as `study/workers.py` starts it."""

import json
import sys
import traceback
from importlib import import_module
from pathlib import Path

from omegaconf import OmegaConf

from distdiff.cli.importing import import_as_told, uncollected
from distdiff.cli.member import end_with_the_parent
from distdiff.cli.performing import end_now
from distdiff.console.quiet import quiet_environment, quiet_libraries
from distdiff.errors import Stopped, UserError
from distdiff.ranks.launcher import JOB


def main() -> None:
    """Runs the task of the job file in `<folder>` as the worker with this `<number>`, with as many threads as the file says.

    The task is a function, `module:function`, of the configuration, the run's directory, the folder and the number.
    """
    folder, number = Path(sys.argv[1]), int(sys.argv[2])
    end_with_the_parent()
    quiet_environment()
    import_as_told()
    status = 0
    try:
        job = json.loads((folder / JOB).read_text(encoding="utf-8"))
        module, function = job["task"].split(":")
        with uncollected():
            task = getattr(import_module(module), function)
        quiet_libraries()
        import torch  # imported by the task's module; OMP_NUM_THREADS alone does not bind it where MKL_NUM_THREADS is set

        torch.set_num_threads(job["threads"])
        config = OmegaConf.create(job["config"])  # checked and completed by the process that started this one
        OmegaConf.set_struct(config, True)
        task(config, Path(job["run_dir"]), folder, number)
    except UserError as error:
        print(error, file=sys.stderr)
        status = error.exit_status
    except Stopped as stop:
        status = stop.exit_status
    except BaseException:
        traceback.print_exc()
        status = 1
    end_now(status)


if __name__ == "__main__":
    main()
