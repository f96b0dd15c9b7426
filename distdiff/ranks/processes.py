"""Starts further processes of this program on this host, sends them signals, and ends them."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import IO

GRACE = 300  # seconds that a process has to finish its batch after a signal
THREADS = "OMP_NUM_THREADS"


def start(
    module: str,
    arguments: Sequence[str],
    threads: int,
    environment: Mapping[str, str] = MappingProxyType({}),
    stdout: int | None = None,
    stderr: IO | None = None,
) -> subprocess.Popen:
    """Starts `python -m module arguments` with this process's environment and the variables in `environment`.

    It has `threads` threads unless these variables set another number. Its standard input closes when this process ends in
    any way, which tells it to end too. `stdout` and `stderr` are those of `subprocess.Popen`.
    """
    # Without -P, modules in the working directory would hide Python's own.
    command = [sys.executable, "-P", "-m", module, *arguments]
    return subprocess.Popen(
        command,
        env={THREADS: str(threads)} | os.environ | environment,
        stdin=subprocess.PIPE,
        stdout=stdout,
        stderr=stderr,
        start_new_session=True,  # Ctrl-C reaches only this process, which forwards it once to each process
        creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),  # the same on Windows
    )


def cores() -> list[int]:
    """The cores that this process may run on."""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(os.cpu_count() or 1))


def forward(number: int, processes: Iterable[subprocess.Popen]) -> None:
    """Sends the signal `number` to the processes that have not ended."""
    for process in processes:
        if process.poll() is None:
            process.send_signal(signal.CTRL_BREAK_EVENT if sys.platform == "win32" else number)


def kill(processes: Iterable[subprocess.Popen]) -> None:
    """Ends processes at once; does nothing to those that have ended."""
    for process in processes:
        process.kill()
