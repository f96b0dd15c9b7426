"""Starts a node's ranks, each in its own process, watches them, and ends all of them if one is lost.

Lightning's own launcher runs the command line again for every rank; under Hydra, this starts a second multirun or makes
a second run directory (hydra issue 2070, Lightning issues 11300 and 18175). Here, a rank gets the finished
configuration of one job instead, so that ranks work the same way in single runs, in multiruns and under Hydra's
launchers.
"""

import json
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from distdiff.errors import ONWARD, STOPPING, RankLost, Stopped, UserError
from distdiff.ranks.arrangement import Node
from distdiff.ranks.processes import GRACE, cores, forward, kill, start

JOB, OUTCOME = "job.json", "outcome-{}.json"


def run_ranks(node: Node, member: str, task: str, config: DictConfig, run_dir: Path | None) -> float | None:
    """Runs `task` (`module:function`) with `config` in each of a node's ranks, and returns when all ranks are done.

    Returns the figure that the node's first rank reports, if any.

    Each rank runs the module `member`. The first argument on its command line is the folder that holds the job file.

    Raises the `UserError` of a rank, `Stopped` after a signal, and `RankLost` if a rank crashed or was killed.
    """
    with tempfile.TemporaryDirectory(prefix="distdiff-ranks-") as folder:
        place = Path(folder)
        job = {
            "task": task,
            "config": OmegaConf.to_container(config, resolve=True),
            "run_dir": run_dir and str(run_dir),
        }
        (place / JOB).write_text(json.dumps(job), encoding="utf-8")
        ranks = [_start(node, member, local_rank, place) for local_rank in range(node.devices)]
        with _forwarding(ranks) as received:
            lost = _watch(ranks, received)
        outcomes = [_outcome(place, local_rank) for local_rank in range(node.devices)]
    if received:
        raise Stopped(received[0])
    # Report the cause, not its effects in other ranks. The order of precedence is: a user error, a rank that crashed or
    # was killed, a signal, a rank that was left alone.
    for outcome in outcomes:
        if outcome.get("status") == UserError.exit_status:
            mistake = UserError(outcome["message"])
            # If all ranks raised the error, the other nodes end this job too, but not the multirun.
            mistake.shared = outcome["shared"]
            raise mistake
    if lost is not None and (silent := _silent(lost, ranks, outcomes)) is not None:
        raise RankLost(_obituary(node, silent, ranks[silent].returncode))
    for outcome in outcomes:
        if "stopped" in outcome:
            raise Stopped(outcome["stopped"])
    for outcome in outcomes:
        if "message" in outcome:
            raise RankLost(outcome["message"])
    return outcomes[0].get("figure")


def _start(node: Node, member: str, local_rank: int, place: Path) -> subprocess.Popen:
    rank = node.rank(local_rank, node.rendezvous or str(place / "rendezvous"))
    return start(member, [str(place), json.dumps(asdict(rank))], max(1, len(cores()) // node.devices))


@contextmanager
def _forwarding(ranks: list[subprocess.Popen]) -> Iterator[list[int]]:
    """Inside the block, forwards signals to all ranks, which then finish their batch.

    Yields a list to which the number of each received signal is added.
    """
    received: list[int] = []

    def note(number: int, _: object) -> None:
        received.append(number)
        forward(number, ranks)

    before = {number: signal.signal(number, note) for number in STOPPING}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _watch(ranks: list[subprocess.Popen], received: list[int]) -> int | None:
    """Waits for all ranks. Returns the index in `ranks` of the rank that failed first, or None if no rank failed.

    Once a rank has failed, the others get SIGTERM. Ranks still running `GRACE` seconds after a failure or a signal are
    killed.
    """
    lost, deadline = None, float("inf")
    try:
        while any(rank.poll() is None for rank in ranks):
            if lost is None:
                lost = next((number for number, rank in enumerate(ranks) if rank.poll()), None)
                if lost is not None:
                    forward(signal.SIGTERM, ranks)
            if (received or lost is not None) and deadline == float("inf"):
                deadline = time.monotonic() + GRACE
            if time.monotonic() > deadline:
                kill(ranks)
            time.sleep(0.05)
    except BaseException:
        kill(ranks)
        raise
    return lost if lost is not None else next((number for number, rank in enumerate(ranks) if rank.returncode), None)


def _silent(lost: int, ranks: list[subprocess.Popen], outcomes: list[dict]) -> int | None:
    """The index of a rank that ended without an outcome, as after a crash: `lost`, or one whose end `lost` noticed.

    The result is None if there is none. Ranks that this process may have ended by a signal do not count.
    """
    if not outcomes[lost]:
        return lost
    crashed = (n for n, rank in enumerate(ranks) if not outcomes[n] and (rank.returncode or 0) > 0)
    return next(crashed, None)


def _outcome(place: Path, local_rank: int) -> dict:
    path = place / OUTCOME.format(local_rank)
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def _obituary(node: Node, local_rank: int, status: int) -> str:
    who = f"rank {node.node * node.devices + local_rank} of {node.num_nodes * node.devices}"
    if status < 0:
        return f"{who} was killed by {signal.Signals(-status).name}; {ONWARD}"
    return f"{who} ended with status {status}, and its own message above says why"  # again, it would end the same way
