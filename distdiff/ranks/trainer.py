"""The Lightning trainers that the stages use, set up from the `trainer` group and silent on the console."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import lightning as L
import torch
from lightning.fabric.plugins.environments import LightningEnvironment
from omegaconf import DictConfig, OmegaConf

from distdiff.errors import UserError, first_line
from distdiff.ranks.arrangement import count_devices, device_indices, require_gpu
from distdiff.ranks.config import OF_EVERY_STAGE
from distdiff.ranks.world import world

CUBLAS = "CUBLAS_WORKSPACE_CONFIG"  # Lightning sets this variable for `deterministic`


def build_trainer(config: DictConfig, **stage: Any) -> L.Trainer:
    """A trainer on this process's own device, from the stage's arguments (`max_steps`, …) and some `trainer` keys.

    These are the keys that hold for every stage. The keys of downstream training are arguments of that stage.
    """
    arguments = _of_every_stage(config)
    indices = device_indices(config)
    if indices is not None:  # several devices, one per rank
        own = [indices[world().local_rank % len(indices)]]
        if torch.cuda.device_count() == 1:  # the scheduler shows each process only its own device
            own = [0]
        arguments["devices"] = 1 if config.accelerator == "cpu" else own
    return _trainer(arguments | {"strategy": "auto", "num_nodes": 1, "plugins": [LightningEnvironment()]} | stage)


def build_parallel_trainer(config: DictConfig, **stage: Any) -> L.Trainer:
    """A trainer that spans all ranks of a job (DDP by default). The data must already be divided among the ranks."""
    arguments = _of_every_stage(config)
    parallel = {
        "devices": count_devices(config) if config.accelerator == "cpu" else (device_indices(config) or 1),
        "strategy": "ddp" if config.strategy == "auto" else config.strategy,
        "plugins": [LightningEnvironment()],  # the ranks already run, so Lightning has none to launch
        "sync_batchnorm": config.accelerator != "cpu",  # Lightning cannot synchronize batch norm on CPUs
        "use_distributed_sampler": False,
    }
    if stage.get("sync_batchnorm") and config.accelerator == "cpu":
        raise UserError(
            "trainer.sync_batchnorm=true is not allowed on CPUs: torch synchronizes batch norm on GPUs alone"
        )
    return _trainer(arguments | parallel | stage)


def _of_every_stage(config: DictConfig) -> dict[str, Any]:
    given = OmegaConf.to_container(config, resolve=True)
    return {name: given[name] for name in OF_EVERY_STAGE}


@contextmanager
def torch_flags_kept() -> Iterator[None]:
    """After the block, torch computes as before it: a trainer with `deterministic` or `benchmark` sets both for all."""
    algorithms = torch.are_deterministic_algorithms_enabled()
    warns, benchmark = torch.is_deterministic_algorithms_warn_only_enabled(), torch.backends.cudnn.benchmark
    workspace = os.environ.get(CUBLAS)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(algorithms, warn_only=warns)
        torch.backends.cudnn.benchmark = benchmark
        if workspace is None:
            os.environ.pop(CUBLAS, None)
        else:
            os.environ[CUBLAS] = workspace


def trainer_device(config: DictConfig) -> torch.device:
    """The device on which this process does its share of the work."""
    return build_trainer(config).strategy.root_device


def _trainer(arguments: dict[str, Any]) -> L.Trainer:
    quiet = {"enable_model_summary": False, "enable_checkpointing": False, "logger": False, "barebones": False}
    try:
        return L.Trainer(**(quiet | arguments))
    except (L.fabric.utilities.exceptions.MisconfigurationException, ValueError, ModuleNotFoundError) as error:
        require_gpu(arguments["accelerator"])
        raise UserError(f"trainer: {first_line(error)}") from None
