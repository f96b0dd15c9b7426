"""A rank that waits for others says for whom and who told it so; a job whose rank crashed does not promise to go on."""

import socket
import sys
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest
from conftest import compose
from omegaconf import OmegaConf

from distdiff.caching.stages import StageCache
from distdiff.classification.recipe import Recipe
from distdiff.classification.training import ClassifierTrainer, training_set
from distdiff.data.datasets import load_dataset
from distdiff.errors import ONWARD, RankLost, UserError
from distdiff.ranks import world
from distdiff.ranks.arrangement import Node, Rank, arrangement
from distdiff.ranks.launcher import run_ranks

LEFT_OVER = {"SLURM_JOB_NAME": "bash", "SLURM_STEP_NUM_TASKS": "2", "SLURM_PROCID": "0"}
WHOLE = LEFT_OVER | {"SLURM_LOCALID": "0", "SLURM_NODEID": "0", "SLURM_JOB_ID": "7", "SLURM_JOB_NODELIST": "node3"}
TORCHRUN = {"TORCHELASTIC_RUN_ID": "x", "WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "0", "GROUP_RANK": "0"}


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        (LEFT_OVER, "SLURM_STEP_NUM_TASKS=2 says that srun started this process, but there is no SLURM_LOCALID in the "),
        (LEFT_OVER, "unset SLURM_STEP_NUM_TASKS; SLURM_JOB_NAME=bash looks like an interactive shell"),
        ({"SLURM_STEP_NUM_TASKS": "2"}, "there is no SLURM_PROCID in the environment: if it did not, unset SLURM_STEP_NUM_TASKS"),
        (WHOLE | {"SLURM_NODEID": ""}, "there is no SLURM_NODEID"),
        (WHOLE | {"SLURM_STEP_NUM_TASKS": "two"}, "SLURM_STEP_NUM_TASKS=two is not allowed: a whole number"),
        (WHOLE | {"SLURM_STEP_NUM_TASKS": "3"}, "3 processes were started; start 2, one per device .SLURM_STEP_NUM_TASKS=3 says"),
        (TORCHRUN, "WORLD_SIZE=2 says that torchrun started this process, but there is no MASTER_ADDR"),
        (TORCHRUN | {"MASTER_ADDR": "a", "MASTER_PORT": "b"}, "MASTER_PORT=b is not allowed: a whole number, which"),
    ],
)  # fmt: skip
def test_variables_that_are_left_over_are_named(environment: dict[str, str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        arrangement(compose("expand", ["trainer=ddp_cpu"]).trainer, environment)


@pytest.mark.parametrize("value", ["x", "-1", "2"])
def test_a_wrong_node_rank_is_named(value: str) -> None:
    environment = {"MASTER_ADDR": "a", "MASTER_PORT": "10", "NODE_RANK": value}
    with pytest.raises(UserError, match=f"NODE_RANK={value} is not allowed: an integer from 0 to 1"):
        arrangement(compose("expand", ["trainer=ddp_cpu", "trainer.num_nodes=2"]).trainer, environment)


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize("by_file", [True, False])
def test_a_rank_that_waits_says_for_whom(by_file: bool, rank: int, tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.setattr(world, "SILENCE", 0.1)
    monkeypatch.setattr(world, "JOINING", timedelta(seconds=0.5))
    started = arrangement(compose("expand", ["trainer=ddp_cpu"]).trainer, WHOLE)
    rendezvous = str(tmp_path / "store") if by_file else f"127.0.0.1:{free_port()}"
    with pytest.raises(RankLost) as end:
        world.World(Rank(rank, 2, rank, 0, rendezvous, started.told_by))
    said = (
        f"rank {rank} waits at {rendezvous} for 1 of 2 ranks (rank {1 - rank}); SLURM_STEP_NUM_TASKS=2 says that srun "
    )
    said += "started so many; if it did not, unset SLURM_STEP_NUM_TASKS; SLURM_JOB_NAME=bash looks like an interactive shell"
    assert str(end.value) == f"gave up waiting: {said}"
    assert capsys.readouterr().err.splitlines()[0] == f"distdiff: {said}"


def test_nodes_that_wait_name_the_key(monkeypatch) -> None:
    environment = {"MASTER_ADDR": "a", "MASTER_PORT": "10", "NODE_RANK": "1"}
    node = arrangement(compose("expand", ["trainer=ddp_cpu", "trainer.num_nodes=2"]).trainer, environment)
    assert node.rank(0, "a:10").told_by.startswith("trainer.num_nodes=2 says so; start the same command on each node")


ENDING = """
import json, os, sys
rank = json.loads(sys.argv[2])["local_rank"]
{body}
"""


@pytest.mark.parametrize(
    ("body", "message", "goes_on"),
    [
        ("if rank == 1: raise ValueError('one image')", "rank 1 of 2 ended with status 1, and its own message", False),
        ("if rank == 0: os.kill(os.getpid(), 9)", "rank 0 of 2 was killed by SIGKILL", True),
        (
            "import time\n"
            "if rank == 0: time.sleep(1); raise ValueError('slower to end')\n"
            "open(sys.argv[1] + '/outcome-1.json', 'w').write('{\"status\": 1, \"message\": \"another rank is gone\"}')\n"
            "sys.exit(1)",
            "another rank is gone",
            False,
        ),
    ],
)
def test_only_a_job_that_can_go_on_says_so(body: str, message: str, goes_on: bool, tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "ending_member.py").write_text(ENDING.format(body=body))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    with pytest.raises(RankLost, match=message) as end:
        run_ranks(Node(0, 1, 2, None), "ending_member", "", OmegaConf.create({}), None)
    assert (ONWARD in str(end.value)) == goes_on


@pytest.mark.parametrize(("batch_size", "message"), [(2, "at least 4, as each of the 2 ranks"), (5, "a multiple of 2")])
def test_one_image_a_rank_is_refused_before_training(
    batch_size: int, message: str, image_folder: Path, tmp_path: Path, monkeypatch
) -> None:
    """Batch normalization cannot normalize one image whose last feature map has one pixel."""
    data = ["dataset=imagefolder", f"dataset.root='{image_folder}'", f"paths.output_dir={tmp_path}"]
    config = compose("train", [*data, f"train.batch_size={batch_size}", "classifier.input_size=8"])
    classifiers = ClassifierTrainer(Recipe.of(config), config.trainer, StageCache(config.paths.cache_dir))
    images = training_set(load_dataset(config.dataset).train, "crop")
    monkeypatch.setattr("distdiff.classification.training.world", lambda: SimpleNamespace(size=2))
    with pytest.raises(UserError, match=f"train.batch_size={batch_size} is not allowed: .*{message}"):
        classifiers.train_together(images, 0, "train")
