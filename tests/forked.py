"""Commands in processes of their own that are forked from one which has imported the heavy libraries.

Importing them takes ten seconds of a processor, and dozens of tests need a process that can be killed, that is a rank or that
runs beside another one. What a command does before and while it imports is tested on `sys.executable`.
"""

import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from unittest.mock import patch

from conftest import ROOT

HEAVY = ["distdiff.study.study", "distdiff.commands.expand", "distdiff.commands.train", "distdiff.tracking"]
QUIET = {"TRANSFORMERS_VERBOSITY": "error", "DIFFUSERS_VERBOSITY": "error"}  # as for the commands themselves
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(HEAVY)


class Started:
    """A running command. Its methods are called as those of `subprocess.Popen`."""

    def __init__(self, command: Sequence[str], cwd: Path = ROOT, env: Mapping[str, str] | None = None) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="distdiff-tests-")
        self._console = [Path(self._folder.name) / name for name in ("out", "err")]
        self._command = list(command)
        given = (self._command[1:], str(cwd), dict(env or os.environ), [str(path) for path in self._console])
        self._process = CONTEXT.Process(target=_run, args=given)
        with patch.dict(os.environ, QUIET):
            self._process.start()  # the first one starts the process that the others are forked from
        self.pid: int = self._process.pid

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def poll(self) -> int | None:
        return self.returncode

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def wait(self, timeout: float = 300) -> int:
        self._process.join(timeout)
        if self.returncode is None:
            self.send_signal(signal.SIGKILL)
            raise subprocess.TimeoutExpired(self._command, timeout)
        return self.returncode

    def communicate(self, timeout: float = 300) -> tuple[str, str]:
        self.wait(timeout)
        out, err = (path.read_text(encoding="utf-8") for path in self._console)
        return out, err


def run(
    command: Sequence[str], cwd: Path = ROOT, env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Runs `[sys.executable, script, ...]` to its end."""
    started = Started(command, cwd, env)
    out, err = started.communicate()
    return subprocess.CompletedProcess(command, started.returncode, out, err)


def _run(typed: list[str], cwd: str, environment: dict[str, str], console: list[str]) -> None:
    """In the new process: becomes the leader of a process group, and runs the script as `python <script> ...` does."""
    os.setsid()
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(cwd)
    for number, path in enumerate(console, 1):
        file = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
        os.dup2(file, number)
        os.close(file)
    sys.argv = typed
    sys.path.insert(0, str(Path(typed[0]).resolve().parent))
    runpy.run_path(typed[0], run_name="__main__")
