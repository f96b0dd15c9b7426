"""Commands in processes of their own that are forked from one which has imported the heavy libraries.

Importing them takes ten seconds of a processor, and many tests need a process that can be killed, that is a rank or that
runs beside another one. Such a process differs from `python <script>`: it has the environment of its command, but what
libraries and OpenMP read when they are imported is that of the first command, and functions registered with `atexit` are
not called. What depends on either is tested with `sys.executable`.

The processes that a command starts itself, its ranks, import the libraries anew, unless `forks_ranks` is asked for. They
do so in tests/ranks/test_joining.py, in `test_ranks_that_others_started_are_one_run` and `test_a_guidance_method_on_two_ranks`,
and a study's processes in `test_runs_of_all_processes_are_in_the_table_before_the_first_reaches_them`.
"""

import atexit
import multiprocessing
import os
import runpy
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from multiprocessing import forkserver
from multiprocessing.reduction import DupFd
from pathlib import Path
from types import MappingProxyType
from typing import IO

import pytest

import distdiff.ranks.launcher
from distdiff.console.quiet import QUIET
from distdiff.ranks.processes import THREADS

ROOT = Path(__file__).resolve().parents[1]
HEAVY = ["distdiff.study.study", "distdiff.commands.expand", "distdiff.commands.train", "distdiff.tracking.wandb_run"]
CONTEXT = multiprocessing.get_context("forkserver")


class Forked:
    """A running process that has been forked. Its methods are called as those of `subprocess.Popen`."""

    def __init__(self, process: multiprocessing.Process) -> None:
        _start(process)
        self._process = process
        self.pid: int = process.pid
        atexit.register(self.kill)  # a failed test may leave it running, and multiprocessing would wait for it

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def poll(self) -> int | None:
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


class Started(Forked):
    """A running command.

    If `forks_ranks`, the ranks that it starts are forked too.
    """

    def __init__(
        self,
        command: Sequence[str],
        cwd: Path = ROOT,
        env: Mapping[str, str] | None = None,
        forks_ranks: bool = False,
    ) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="distdiff-console-")
        self._console = [Path(self._folder.name) / name for name in ("out", "err")]
        self._command = list(command)
        environment = dict(os.environ if env is None else env)
        given = (self._command[1:], str(cwd), environment, [str(path) for path in self._console], forks_ranks)
        super().__init__(CONTEXT.Process(target=_run, args=given))

    def kill(self) -> None:
        """Also ends the processes that the command has started."""
        if self.poll() is None:
            os.killpg(self.pid, signal.SIGKILL)
            self._process.join()

    def wait(self, timeout: float = 300) -> int:
        self._process.join(timeout)
        if self.returncode is None:
            self.kill()
            raise subprocess.TimeoutExpired(self._command, timeout, *self._said())
        return self.returncode

    def communicate(self, timeout: float = 300) -> tuple[str, str]:
        self.wait(timeout)
        return self._said()

    def _said(self) -> tuple[str, str]:
        out, err = (path.read_text(encoding="utf-8") if path.exists() else "" for path in self._console)
        return out, err


class Member(Forked):
    """A process that a command starts for itself, as `start_member` returns it."""

    def __init__(self, process: multiprocessing.Process, lifeline: int | None) -> None:
        super().__init__(process)
        self._lifeline = lifeline  # a file that ends the process when it is closed

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        if self.returncode is None:
            raise subprocess.TimeoutExpired(self._process.name, timeout)
        if self._lifeline is not None:
            os.close(self._lifeline)
            self._lifeline = None
        return self.returncode


def start_member(
    module: str,
    arguments: Sequence[str],
    threads: int,
    environment: Mapping[str, str] = MappingProxyType({}),
    stdout: int | None = None,
    stderr: IO | None = None,
) -> Member:
    """In place of `distdiff.ranks.processes.start`: forks the process, which has imported all."""
    theirs, ours = os.pipe()
    with open(os.devnull, "wb") as nowhere:
        out = nowhere.fileno() if stdout == subprocess.DEVNULL else 1
        err = 2 if stderr is None else stderr.fileno()
        variables = {THREADS: str(threads)} | os.environ | environment
        given = (module, list(arguments), dict(variables), [Passed(theirs), Passed(out), Passed(err)], os.getcwd())
        member = Member(CONTEXT.Process(target=_run_member, args=given), ours)
    os.close(theirs)
    return member


class Passed:
    """An open file that a new process takes over."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __reduce__(self) -> tuple:
        return _taken, (DupFd(self.number),)


def _taken(passed: DupFd) -> int:
    return passed.detach()


def run(
    command: Sequence[str], cwd: Path = ROOT, env: Mapping[str, str] | None = None, forks_ranks: bool = False
) -> subprocess.CompletedProcess[str]:
    """Runs `[sys.executable, script, ...]` to its end."""
    started = Started(command, cwd, env, forks_ranks)
    out, err = started.communicate()
    return subprocess.CompletedProcess(command, started.returncode, out, err)


def run_two_ranks(command: Sequence[str], cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """Runs a command as two ranks that torchrun has started. Returns what the leading one ends with."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1] - 1  # the ranks meet at the next one
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "TORCHELASTIC_RUN_ID": str(port), "WORLD_SIZE": "2"}
    ranks = [
        Started(
            [*command, "trainer=ddp_cpu"],
            cwd,
            os.environ | place | {"RANK": rank, "LOCAL_RANK": rank, "GROUP_RANK": "0"},
        )
        for rank in ("0", "1")
    ]
    out, err = ranks[0].communicate()
    assert ranks[1].wait() == ranks[0].returncode, (err, ranks[1].communicate())
    return subprocess.CompletedProcess(command, ranks[0].returncode, out, err)


def _start(process: multiprocessing.Process) -> None:
    """Forks the process. The first one starts the one that all are forked from, which imports `HEAVY`."""
    missing = [name for name in HEAVY if find_spec(name) is None]
    assert not missing, f"{missing} cannot be imported; multiprocessing would leave them out in silence"
    CONTEXT.set_forkserver_preload(HEAVY)
    with pytest.MonkeyPatch.context() as patch:
        for name in QUIET.keys() - os.environ.keys():
            patch.setenv(name, QUIET[name])
        process.start()


def _run(typed: list[str], cwd: str, environment: dict[str, str], console: list[str], forks_ranks: bool) -> None:
    """In the new process: runs the script, which writes to the files in `console`."""
    _become(environment, cwd, {1 + n: os.open(path, os.O_WRONLY | os.O_CREAT, 0o600) for n, path in enumerate(console)})
    if forks_ranks:
        # The server that has forked this process is used again. Python would start a second one.
        forkserver._forkserver.ensure_running = lambda: None
        distdiff.ranks.launcher.start = start_member
    sys.argv = typed
    sys.path.insert(0, str(Path(typed[0]).resolve().parent))
    runpy.run_path(typed[0], run_name="__main__")


def _run_member(
    module: str, arguments: list[str], environment: dict[str, str], streams: Sequence[int], cwd: str
) -> None:
    """In the new process: as `python -m module arguments` with these standard streams."""
    _become(environment, cwd, dict(enumerate(streams)))
    sys.stdin = open(0)  # multiprocessing has put another file in its place  # noqa: SIM115
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


def _become(environment: Mapping[str, str], cwd: str, streams: Mapping[int, int]) -> None:
    """Makes this process the leader of a session, with these variables, this working directory and these open files."""
    os.setsid()
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(cwd)
    for number, file in streams.items():
        os.dup2(file, number)
        os.close(file)
