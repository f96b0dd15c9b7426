"""Several processes a job: the same images as from one, whoever starts them, and none is left hanging."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import forked
import numpy as np
import pytest
from conftest import ROOT, compose, small_overrides

from distdiff.classification.data import BatchShards
from distdiff.commands.expand import expand
from distdiff.errors import UserError
from distdiff.ranks.arrangement import Node, Rank, arrangement
from distdiff.ranks.world import World
from distdiff.store.comparison import content_differences
from distdiff.store.shares import Share

SLURM = {"SLURM_STEP_NUM_TASKS": "4", "SLURM_PROCID": "3", "SLURM_LOCALID": "1", "SLURM_NODEID": "1"}
SLURM |= {"SLURM_JOB_ID": "5", "SLURM_JOB_NODELIST": "node[3-4]", "MASTER_PORT": "1234"}
TORCHRUN = {"TORCHELASTIC_RUN_ID": "x", "RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1", "GROUP_RANK": "0"}
TORCHRUN |= {"MASTER_ADDR": "a", "MASTER_PORT": "10"}
BY_HAND = {"MASTER_ADDR": "a", "MASTER_PORT": "10", "NODE_RANK": "1"}


@pytest.mark.parametrize(
    ("trainer", "environment", "expected"),
    [
        ([], {}, None),
        ([], SLURM, None),  # one process a task: array jobs and splits
        (["trainer=ddp_cpu"], {}, Node(0, 1, 2, None)),
        (["trainer=ddp_cpu", "trainer.devices=1"], {}, None),
        (["trainer=ddp_cpu", "trainer.num_nodes=2"], BY_HAND, Node(1, 2, 2, "a:10")),
        (["trainer=ddp_cpu", "trainer.num_nodes=2"], SLURM, Rank(3, 4, 1, 1, "node3:1234")),
        (["trainer=ddp_cpu"], TORCHRUN, Rank(1, 2, 1, 0, "a:11")),
        (["trainer=gpu", "trainer.devices=[1,3]"], {}, Node(0, 1, 2, None)),
        (["trainer=gpu", "trainer.devices=3", "trainer.num_nodes=4"], SLURM, Node(3, 4, 3, "node3:1234")),
    ],
)
def test_a_process_knows_its_part(trainer: list[str], environment: dict[str, str], expected: object) -> None:
    assert arrangement(compose("expand", trainer).trainer, environment) == expected


@pytest.mark.parametrize(
    ("trainer", "environment", "message"),
    [
        (
            ["trainer=ddp_cpu", "trainer.num_nodes=2"],
            {},
            "without MASTER_ADDR, MASTER_PORT, NODE_RANK in the environment",
        ),
        (["trainer=ddp_cpu", "trainer.num_nodes=2"], BY_HAND | {"NODE_RANK": "2"}, "NODE_RANK=2 is not allowed"),
        (["trainer=ddp_cpu", "trainer.devices=3"], SLURM, "4 processes were started; start 3, one per device"),
    ],
)
def test_processes_that_do_not_match_are_refused(trainer: list[str], environment: dict[str, str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        arrangement(compose("expand", trainer).trainer, environment)


def in_threads(size: int, run: Callable[[World], object], folder: Path) -> list[object]:
    """What `run` returns on each of `size` ranks, here threads of one process."""
    results: list[object] = [None] * size

    def rank(number: int) -> None:
        try:
            results[number] = run(World(Rank(number, size, number, 0, str(folder / "store"))))
        except UserError as error:
            results[number] = error

    threads = [threading.Thread(target=rank, args=(number,)) for number in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    return results


def test_what_is_done_once_is_done_by_the_leading_rank_alone(tmp_path: Path) -> None:
    made = []

    def run(world: World) -> tuple[object, ...]:
        def make() -> dict[str, int]:
            made.append((world.rank, world.size, world.once(lambda: "within")))
            return {"size": world.size}

        counter = world.counter()
        counter.add(10 + world.rank)
        world.barrier()
        return world.once(make), world.rank, world.size, counter.add(0)

    assert in_threads(3, run, tmp_path) == [({"size": 1}, rank, 3, 33) for rank in range(3)]
    assert made == [(0, 1, "within")]


def test_ranks_go_by_what_the_first_of_them_found_out_and_none_waits(tmp_path: Path) -> None:
    """Also within what one rank does alone; what only one rank asks about does not keep it."""

    def run(world: World) -> list[str]:
        found = []
        if world.rank == 1:
            found = [world.agreed("main", "found by 1"), world.agreed("other", "asked by 1 alone")]
        world.barrier()
        found += [world.agreed("main", f"found by {world.rank}"), world.once(lambda: world.agreed("main", "later"))]
        return found

    zero, one, two = in_threads(3, run, tmp_path)
    assert zero == two == ["found by 1"] * 2
    assert one == ["found by 1", "asked by 1 alone", "found by 1", "found by 1"]
    assert World().agreed("main", "alone") == "alone"


def test_ranks_share_the_cores_that_they_have_in_common(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("distdiff.ranks.world.cores", lambda: list(range(12)))

    def run(world: World) -> tuple[int, int]:
        world.barrier()
        return world.fair_share(), world.once(world.fair_share)

    assert in_threads(3, run, tmp_path) == [(4, 12)] * 3  # the leading rank alone has all while the others wait
    assert World().fair_share() == 12


def test_a_mistake_found_once_is_raised_on_all_ranks(tmp_path: Path) -> None:
    def run(world: World) -> None:
        def make() -> None:
            raise UserError("no such folder")

        world.once(make)

    errors = in_threads(2, run, tmp_path)
    assert [str(error) for error in errors] == ["no such folder"] * 2
    assert all(error.shared for error in errors)


def test_shares_of_ranks_are_disjoint_and_leave_nothing_out() -> None:
    indices = np.arange(101)
    for total in (1, 3):
        for ranks in (1, 2, 5):
            shares = [Share(split, total, rank, ranks) for split in range(total) for rank in range(ranks)]
            parts = [share.of(indices) for share in shares]
            assert sorted(np.concatenate(parts)) == list(range(101))
            assert len({share.name for share in shares}) == len(shares)
            assert max(map(len, parts)) - min(map(len, parts)) <= 2


def test_ranks_share_every_training_batch() -> None:
    batches = [[0, 1, 2, 3], [4, 5, 6, 7]]
    shards = [list(BatchShards(batches, shard, 2)) for shard in range(2)]
    assert shards == [[[0, 2], [4, 6]], [[1, 3], [5, 7]]]


@pytest.fixture(scope="module")
def command(pipeline_folder: Path, image_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Makes 36 images."""
    small_run = small_overrides(pipeline_folder, tmp_path_factory.mktemp("ranks"))
    script = [sys.executable, "experiments/expand.py", *small_run, "dataset=imagefolder"]
    return [*script, f"dataset.root={image_folder}", "expansion.factor=6", "guidance=direct"]


@pytest.fixture(scope="module")
def whole(command: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What one process makes: this one."""
    top = tmp_path_factory.mktemp("one")
    return expand(compose("expand", [*command[2:], f"expansion.output_dir={top}/whole"]), top)


def test_two_ranks_make_what_one_process_makes_and_survive_the_death_of_one(
    command: list[str], whole: Path, tmp_path: Path
) -> None:
    """Rank 1 is killed on the way: the other ends, the command says why, and two ranks started by torchrun finish it."""
    made = tmp_path / "made"
    command = [*command, f"expansion.output_dir={made}", "expansion.batch_size=1"]
    process = forked.Started([*command, "trainer=ddp_cpu"], forks_ranks=True)
    while process.poll() is None and len(list(made.glob("[!.]*/*.png"))) < 4:
        time.sleep(0.002)
    holder = json.loads((made / ".share-0-of-1-rank-1-of-2.lock.holder").read_text())
    os.kill(holder["process"], signal.SIGKILL)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert errors.startswith("distdiff: rank 1 of 2 was killed by SIGKILL; what is finished is kept")
    finished = {path: path.stat().st_mtime_ns for path in made.glob("[!.]*/*.png")}
    assert 4 <= len(finished) < 36
    done = forked.run_two_ranks(command)
    assert done.returncode == 0, done.stderr
    assert f"{36 - len(finished)}/{36 - len(finished)}" in done.stdout
    assert {path: path.stat().st_mtime_ns for path in finished} == finished
    assert content_differences(whole, made) == []


@pytest.mark.parametrize("starter", ["srun", "by hand"])
def test_ranks_that_others_started_are_one_run(starter: str, command: list[str], whole: Path, tmp_path: Path) -> None:
    """Two tasks of one SLURM step, and two hosts with a rank each; both here on one machine."""
    made, outputs = tmp_path / "made", tmp_path / "ranks"
    command = [*command, "trainer=ddp_cpu", f"expansion.output_dir={made}", f"paths.output_dir={outputs}"]
    environments = [
        {"SLURM_STEP_NUM_TASKS": "2", "SLURM_PROCID": str(rank), "SLURM_LOCALID": str(rank), "SLURM_NODEID": "0"}
        | {"SLURM_JOB_ID": str(os.getpid()), "SLURM_JOB_NODELIST": "127.0.0.1"}
        for rank in range(2)
    ]
    if starter == "by hand":
        command += ["trainer.devices=1", "trainer.num_nodes=2"]
        port = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(20000 + os.getpid() % 20000)}
        environments = [port | {"NODE_RANK": str(node)} for node in range(2)]
    # What libraries read of SLURM's environment when they are imported is read in processes of its own only.
    start = (
        forked.Started if starter == "by hand" else partial(subprocess.Popen, cwd=ROOT, stdout=-1, stderr=-1, text=True)
    )
    processes = [start(command, env=os.environ | environment) for environment in environments]
    outputs_of = [process.communicate(timeout=180) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs_of
    assert outputs_of[1] == ("", "")
    assert "36/36" in outputs_of[0][0]
    assert len(list((outputs / "expand").iterdir())) == 1
    assert content_differences(whole, made) == []
