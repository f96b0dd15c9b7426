"""The function that Hydra calls for each job, in this process or in one that a Hydra launcher has started."""

import contextlib
import sys
from dataclasses import dataclass
from pathlib import Path

from hydra.conf import HydraConf
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from distdiff.cli.endings import JOB_FAILED
from distdiff.cli.importing import import_from
from distdiff.cli.job import Tasks, is_one_of_several, is_swept, run_job
from distdiff.cli.output import say
from distdiff.config.checking import complete, validate
from distdiff.config.command import Command
from distdiff.config.composing import BASIC_SWEEPER, Job
from distdiff.console.output import console
from distdiff.console.quiet import quiet_environment
from distdiff.console.record import discard_empty
from distdiff.console.working import Working
from distdiff.errors import UserError
from distdiff.keys import TARGET
from distdiff.option_files.search_path import SearchPath
from distdiff.ranks.arrangement import device_indices
from distdiff.tracking.columns import dataset_name

JOBLIB = "hydra_plugins.hydra_joblib_launcher"


@dataclass(frozen=True)
class HydraTask:
    """Checks the composed configuration of a job and runs the job. Launchers pickle this object."""

    command: Command
    tasks: Tasks
    search: SearchPath
    import_folders: tuple[Path, ...]

    def __call__(self, config: DictConfig) -> float | None:
        """Returns the figure that a sweeper may optimise. Raises `UserError`, which `Endings` reports."""
        quiet_environment()  # again, like the next line, because a Hydra launcher may have started a new process
        import_from(*self.import_folders)
        hydra = HydraConfig.get()
        swept, run_dir = is_swept(), Path(hydra.runtime.output_dir)
        job = Job(
            self.command,
            config,
            {str(name): str(option) for name, option in hydra.runtime.choices.items()},
            tuple(hydra.overrides.task),
            self.search,
            swept=swept,
            chdir=bool(hydra.job.chdir),
        )
        Working.end()
        if not swept:  # `Endings` says which job of a multirun begins
            say_begun(self.command.name, config, run_dir)
        try:
            with contextlib.chdir(hydra.runtime.cwd):  # relative paths are meant from there
                # In a multirun, a key that this job does not read may be for another job. The command has checked every key.
                checked = complete(job)[0] if swept else validate(job)
            share_gpus(checked, hydra)
            figure = run_job(self.tasks, checked, run_dir, list(self.command.warnings(checked)))
        except UserError as error:
            if not swept and not any(item.startswith("hydra.run.dir=") for item in hydra.overrides.hydra):
                discard_empty(run_dir)
            elif swept and is_one_of_several(config) and not error.shared:
                say(error)
                sys.exit(JOB_FAILED)  # the other ranks do not know this error; they stop because this rank is gone
            raise
        if figure is None and swept and hydra.sweeper[TARGET] != BASIC_SWEEPER:
            raise UserError(
                "study.methods has no row `chosen`, whose study.objective the sweeper could optimise: add it"
            )
        return figure


def say_begun(name: str, config: DictConfig, run_dir: Path) -> None:
    """Says what begins and where, before anything is imported that takes long."""
    dataset = dataset_name(config)
    console.print(f"{name}: {f'dataset {dataset}, ' if dataset else ''}directory {run_dir}")


def share_gpus(config: DictConfig, hydra: HydraConf) -> None:
    """Gives job n of the jobs that Hydra's joblib launcher runs at the same time the GPU n modulo the number of GPUs."""
    single = config.trainer.accelerator in ("gpu", "cuda") and device_indices(config.trainer) is None
    if single and hydra.mode == RunMode.MULTIRUN and hydra.launcher[TARGET].startswith(JOBLIB):
        import torch  # imported only here, because it takes seconds

        if count := torch.cuda.device_count():
            config.trainer.devices = [hydra.job.num % count]
