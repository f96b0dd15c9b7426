"""How many processes a job has and, if there are several, what starts them: DistDiff, `srun` or `torchrun`."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field

from omegaconf import DictConfig, OmegaConf

from distdiff.errors import UserError

TASKS = "SLURM_STEP_NUM_TASKS"
INTERACTIVE = ("bash", "interactive")  # names of SLURM jobs that Lightning, too, takes for interactive shells
ON_GPU = ("gpu", "cuda")  # Lightning's `gpu` is also the graphics processor of an Apple machine
TORCHRUN, WORLD = "TORCHELASTIC_RUN_ID", "WORLD_SIZE"


@dataclass(frozen=True)
class Rank:
    """One of a job's `size` processes, with index `rank` in the job and index `local_rank` on host `node`.

    All processes of the job meet at `rendezvous`, a file or host:port. `told_by` says where `size` comes from, and what
    to do if it is wrong.
    """

    rank: int
    size: int
    local_rank: int
    node: int
    rendezvous: str
    told_by: str = field(default="", compare=False)

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
    told_by: str = field(default="", compare=False)

    @property
    def leads(self) -> bool:
        return self.node == 0

    def rank(self, local_rank: int, rendezvous: str) -> Rank:
        return Rank(
            self.node * self.devices + local_rank,
            self.num_nodes * self.devices,
            local_rank,
            self.node,
            rendezvous,
            self.told_by,
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
        return Node(started.rank, num_nodes, devices, started.rendezvous, started.told_by)
    raise UserError(
        f"trainer.devices={trainer.devices} on trainer.num_nodes={num_nodes} is not allowed: {started.size} processes were "
        f"started; start {size}, one per device"
        + (f", or {num_nodes}, one per node" if num_nodes > 1 else "")
        + f" ({started.told_by})"
    )


def may_follow(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether this process may be one that another leads, as far as the environment says before there is a job."""
    by_slurm = environment.get(TASKS, "1") != "1" and environment.get("SLURM_PROCID") != "0"
    by_torchrun = TORCHRUN in environment and environment.get("RANK", "0") != "0"
    return by_slurm or by_torchrun or environment.get("NODE_RANK", "0") != "0"


def require_gpu(accelerator: str) -> None:
    """Raises `UserError` if a GPU is asked for and there is none. Imports torch, but only if a GPU is asked for."""
    if accelerator not in ON_GPU:
        return
    import torch

    if not torch.cuda.is_available() and not (accelerator == "gpu" and torch.backends.mps.is_available()):
        raise UserError(
            f"trainer.accelerator={accelerator} is not allowed: there is no GPU here; trainer=cpu runs on the processor"
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
    """The rank that `srun` gave this process; None if `srun` did not start several processes (`sbatch` starts one).

    Raises `UserError` if variables of SLURM are missing or wrong, as when they are left over in a shell.
    """
    if (said := environment.get(TASKS, "1")) == "1":
        return None
    variables = Variables(environment, TASKS, said, "srun", _advice(environment))
    size, rank = variables.number(TASKS), variables.number("SLURM_PROCID")
    local_rank, node = variables.number("SLURM_LOCALID"), variables.number("SLURM_NODEID")
    job, step = variables.number("SLURM_JOB_ID"), variables.number("SLURM_STEP_ID", "0")
    nodes = environment.get("SLURM_STEP_NODELIST") or variables.text("SLURM_JOB_NODELIST")
    from lightning.fabric.plugins.environments import SLURMEnvironment

    host = environment.get("MASTER_ADDR") or SLURMEnvironment.resolve_root_node_address(nodes)
    # Simultaneous steps of one SLURM job must not use the same port.
    port = variables.number("MASTER_PORT", str(15000 + (job * 31 + step) % 20000))
    return Rank(rank, size, local_rank, node, f"{host}:{port}", variables.told_by)


def started_by_torchrun(environment: Mapping[str, str]) -> Rank | None:
    """The rank that `torchrun` gave this process; None if `torchrun` did not start several processes.

    Raises `UserError` if variables of `torchrun` are missing or wrong.
    """
    if TORCHRUN not in environment or (said := environment.get(WORLD, "1")) == "1":
        return None
    variables = Variables(environment, WORLD, said, "torchrun", f"unset {TORCHRUN}")
    size, rank = variables.number(WORLD), variables.number("RANK")
    local_rank, node = variables.number("LOCAL_RANK"), variables.number("GROUP_RANK")
    # torchrun's own store listens on MASTER_PORT, so the next port is used.
    rendezvous = f"{variables.text('MASTER_ADDR')}:{variables.number('MASTER_PORT') + 1}"
    return Rank(rank, size, local_rank, node, rendezvous, variables.told_by)


def _advice(environment: Mapping[str, str]) -> str:
    """What to do if `srun` has not started this process, although SLURM's variables say so."""
    name = environment.get("SLURM_JOB_NAME")
    shell = f"; SLURM_JOB_NAME={name} looks like an interactive shell" if name in INTERACTIVE else ""
    return f"unset {TASKS}{shell}"


@dataclass(frozen=True)
class Variables:
    """The environment variables of `starter`, of which `name` has the value `value`, the number of ranks.

    `advice` says what to do if `starter` has not started this process.
    """

    environment: Mapping[str, str]
    name: str
    value: str
    starter: str
    advice: str

    @property
    def told_by(self) -> str:
        return f"{self.name}={self.value} says that {self.starter} started so many; if it did not, {self.advice}"

    def text(self, name: str, default: str | None = None) -> str:
        value = self.environment.get(name, default)
        if not value:
            raise UserError(
                f"{self.name}={self.value} says that {self.starter} started this process, but there is no {name} in the "
                f"environment: if it did not, {self.advice}"
            )
        return value

    def number(self, name: str, default: str | None = None) -> int:
        value = self.text(name, default)
        if not (value.isascii() and value.isdigit()):
            raise UserError(
                f"{name}={value} is not allowed: a whole number, which {self.starter} sets; else {self.advice}"
            )
        return int(value)


def _by_hand(devices: int, num_nodes: int, environment: Mapping[str, str]) -> Node:
    if num_nodes == 1:
        return Node(0, 1, devices, None)
    missing = [name for name in ("MASTER_ADDR", "MASTER_PORT", "NODE_RANK") if name not in environment]
    if missing:
        raise UserError(
            f"trainer.num_nodes={num_nodes} is not allowed without {', '.join(missing)} in the environment: set them and start "
            "the command once on each node, or start it with srun"
        )
    node, port = environment["NODE_RANK"], environment["MASTER_PORT"]
    if not (node.isascii() and node.isdigit() and int(node) < num_nodes):
        raise UserError(f"NODE_RANK={node} is not allowed: an integer from 0 to {num_nodes - 1}")
    if not (port.isascii() and port.isdigit()):
        raise UserError(f"MASTER_PORT={port} is not allowed: the number of a port")
    told_by = f"trainer.num_nodes={num_nodes} says so; start the same command on each node, with its own NODE_RANK"
    return Node(int(node), num_nodes, devices, f"{environment['MASTER_ADDR']}:{port}", told_by)
