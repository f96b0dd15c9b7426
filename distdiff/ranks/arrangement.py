"""How many processes a job has and, if there are several, what starts them: DistDiff, `srun` or `torchrun`."""

import os
from collections.abc import Mapping
from dataclasses import dataclass

from omegaconf import DictConfig, OmegaConf

from distdiff.errors import UserError


@dataclass(frozen=True)
class Rank:
    """One of a job's `size` processes, with index `rank` in the job and index `local_rank` on host `node`.

    All processes of the job meet at `rendezvous`, a file or host:port.
    """

    rank: int
    size: int
    local_rank: int
    node: int
    rendezvous: str

    @property
    def leads(self) -> bool:
        return self.rank == 0


@dataclass(frozen=True)
class Node:
    """The host with index `node` among a job's `num_nodes` hosts; on each, `devices` ranks are still to be started."""

    node: int
    num_nodes: int
    devices: int
    rendezvous: str | None  # None if there is only one node, whose ranks meet at a temporary file

    @property
    def leads(self) -> bool:
        return self.node == 0

    def rank(self, local_rank: int, rendezvous: str) -> Rank:
        return Rank(
            self.node * self.devices + local_rank, self.num_nodes * self.devices, local_rank, self.node, rendezvous
        )


def arrangement(trainer: DictConfig, environment: Mapping[str, str] = os.environ) -> Rank | Node | None:
    """This process's part in a job with these `trainer` keys; None if this process does the job alone.

    The part is a `Rank`, or a `Node` if this process has to start the ranks of its host.

    Raises `UserError` if the number of started processes does not fit the keys.
    """
    devices, num_nodes = count_devices(trainer), trainer.num_nodes
    size = devices * num_nodes
    if size == 1:
        return None
    started = started_by_slurm(environment) or started_by_torchrun(environment)
    if started is None:
        return _by_hand(devices, num_nodes, environment)
    if started.size == size:
        return started
    if started.size == num_nodes:
        return Node(started.rank, num_nodes, devices, started.rendezvous)
    raise UserError(
        f"trainer.devices={trainer.devices} on trainer.num_nodes={num_nodes} is not allowed: {started.size} processes were "
        f"started; start {size}, one per device" + (f", or {num_nodes}, one per node" if num_nodes > 1 else "")
    )


def count_devices(trainer: DictConfig) -> int:
    """The number of devices per node. Lightning reads `trainer.devices` as a number, a list of indices, or `auto`."""
    indices = device_indices(trainer)
    return 1 if indices is None else len(indices)


def device_indices(trainer: DictConfig) -> list[int] | None:
    """Indices of the requested devices on a node; None for a single device that Lightning chooses."""
    devices = trainer.devices
    if OmegaConf.is_list(devices) or (isinstance(devices, str) and "," in devices):
        parts = devices.split(",") if isinstance(devices, str) else devices
        return [int(part) for part in parts if str(part).strip()]
    if str(devices) not in ("auto", "-1"):
        return list(range(int(devices))) if int(devices) > 1 else None
    if trainer.accelerator == "cpu":
        return None
    import torch  # importing torch takes seconds, so it is done only if nothing else gives the number

    return list(range(torch.cuda.device_count())) or None


def started_by_slurm(environment: Mapping[str, str]) -> Rank | None:
    """The rank that `srun` gave this process; None if `srun` did not start several processes (`sbatch` starts one)."""
    if int(environment.get("SLURM_STEP_NUM_TASKS", 1)) == 1:
        return None
    from lightning.fabric.plugins.environments import SLURMEnvironment

    nodes = environment.get("SLURM_STEP_NODELIST") or environment["SLURM_JOB_NODELIST"]
    host = environment.get("MASTER_ADDR") or SLURMEnvironment.resolve_root_node_address(nodes)
    # Simultaneous steps of one SLURM job must not use the same port.
    port = 15000 + (int(environment["SLURM_JOB_ID"]) * 31 + int(environment.get("SLURM_STEP_ID", 0))) % 20000
    return Rank(
        rank=int(environment["SLURM_PROCID"]),
        size=int(environment["SLURM_STEP_NUM_TASKS"]),
        local_rank=int(environment["SLURM_LOCALID"]),
        node=int(environment["SLURM_NODEID"]),
        rendezvous=f"{host}:{environment.get('MASTER_PORT', port)}",
    )


def started_by_torchrun(environment: Mapping[str, str]) -> Rank | None:
    """The rank that `torchrun` gave this process; None if `torchrun` did not start several processes."""
    if "TORCHELASTIC_RUN_ID" not in environment or int(environment["WORLD_SIZE"]) == 1:
        return None
    # torchrun's own store listens on MASTER_PORT, so the next port is used.
    return Rank(
        rank=int(environment["RANK"]),
        size=int(environment["WORLD_SIZE"]),
        local_rank=int(environment["LOCAL_RANK"]),
        node=int(environment["GROUP_RANK"]),
        rendezvous=f"{environment['MASTER_ADDR']}:{int(environment['MASTER_PORT']) + 1}",
    )


def _by_hand(devices: int, num_nodes: int, environment: Mapping[str, str]) -> Node:
    if num_nodes == 1:
        return Node(0, 1, devices, None)
    missing = [name for name in ("MASTER_ADDR", "MASTER_PORT", "NODE_RANK") if name not in environment]
    if missing:
        raise UserError(
            f"trainer.num_nodes={num_nodes} is not allowed without {', '.join(missing)} in the environment: set them and start "
            "the command once on each node, or start it with srun"
        )
    node = int(environment["NODE_RANK"])
    if not 0 <= node < num_nodes:
        raise UserError(f"NODE_RANK={node} is not allowed: an integer from 0 to {num_nodes - 1}")
    return Node(node, num_nodes, devices, f"{environment['MASTER_ADDR']}:{environment['MASTER_PORT']}")
