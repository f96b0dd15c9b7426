"""The scripts of `experiments/` in this process: commands, all that they do but for their start of some seconds, and studies."""

import os
import runpy
import sys
from dataclasses import dataclass
from importlib import import_module
from types import ModuleType

import pytest
from conftest import ROOT


def study_script(name: str) -> ModuleType:
    """A script of `experiments/studies/` as a module; scripts import each other by name, as when they are run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "path", [str(ROOT / "experiments/studies"), *sys.path])
        return import_module(name)


@dataclass(frozen=True)
class Ended:
    """The exit status of a command, and what it wrote to its console."""

    status: int
    out: str
    err: str


def run_here(script: str, typed: list[str], capsys: pytest.CaptureFixture[str]) -> Ended:
    """What `python experiments/<script>.py` does with the arguments `typed`, in the working directory of this process.

    What a command changes of its process (where it imports from, environment variables) is as before afterwards.
    """
    environment, status = dict(os.environ), 0
    capsys.readouterr()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [f"{script}.py", *typed])
        patch.setattr(sys, "path", list(sys.path))
        try:
            runpy.run_path(str(ROOT / "experiments" / f"{script}.py"), run_name="__main__")
        except SystemExit as ending:
            status = ending.code
        finally:
            os.environ.clear()
            os.environ.update(environment)
    return Ended(status, *capsys.readouterr())
