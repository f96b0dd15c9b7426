"""Runs the rows of a benchmark in turn, and measures how fast each makes images, with how much memory, and in which parts."""

import math
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median

import lightning as L
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback
from omegaconf import DictConfig, OmegaConf

from distdiff.benchmark.flops import flop_counter
from distdiff.benchmark.memory import PeakMemory
from distdiff.benchmark.parts import NETWORK, MeterParts, PartMeter
from distdiff.console.output import console
from distdiff.expansion.job import ExpansionJob
from distdiff.ranks.trainer import trainer_device
from distdiff.ranks.world import world
from distdiff.store.directory import ExpandedDirectory


@dataclass
class RowSpeed:
    """What was measured of one row. The numbers of `seconds` and `flops` are per image."""

    name: str
    overrides: list[str]
    batch_size: int
    images: int  # in each run
    rates: list[float] = field(default_factory=list)  # images per second, one for each timed run, in the order of turns
    peak_memory: int | None = None  # bytes
    seconds: dict[str, float] = field(default_factory=dict)  # of each part
    flops: dict[str, float] = field(default_factory=dict)  # of each part
    network_calls: float | None = None  # evaluations of the denoising network for a batch, without backward passes

    @property
    def rate(self) -> float:
        """The median of the rates."""
        return median(self.rates)

    @property
    def total_flops(self) -> float | None:
        """FLOPs per image; None if they were not counted."""
        return sum(self.flops.values()) if self.flops else None

    @property
    def network_flops(self) -> float | None:
        """FLOPs per image of the denoising network alone, without backward passes."""
        return self.flops.get(NETWORK)


class RunClock(Callback):
    """The seconds from the moment at which everything is loaded until the last image of this process is stored."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds = 0.0
        self.limit: int | None = None  # how many images fit into memory at a time, if a batch did not
        self._started = 0.0

    def on_predict_start(self, *_: object) -> None:
        self._started = time.perf_counter()

    def on_predict_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.seconds = time.perf_counter() - self._started
        self.limit = pl_module.within_memory.limit


class Contender:
    """A row of the benchmark, ready to make images again and again."""

    def __init__(
        self, name: str, overrides: list[str], config: DictConfig, job: ExpansionJob, least: int, place: Path
    ) -> None:
        """`least`: the number of images of a run, unless a batch is larger. `place`: a folder that does not exist yet,
        in which images are made."""
        self.job = job
        self.place = place
        self.memory = PeakMemory(trainer_device(config.trainer))
        synthesizer = job.synthesizer(name)  # loaded once, for all runs
        job.synthesizer = lambda title: synthesizer
        batch_size = job.method.group_size or job.batch_size(job.plan, np.arange(len(job.plan)), synthesizer)
        self.config = OmegaConf.merge(config, {"expansion": {"batch_size": batch_size}})
        self.speed = RowSpeed(name, overrides, batch_size, math.ceil(least / batch_size) * batch_size)

    def warm_up(self) -> None:
        """Makes one batch, which is not measured: libraries choose their algorithms in the first."""
        self._make(self.speed.batch_size)

    def time(self) -> None:
        """Makes a run's images, and notes the rate and the peak of memory."""
        with self.memory.measured():
            seconds = self._make(self.speed.images)
        self.speed.rates.append(self.speed.images / seconds)
        self.speed.peak_memory = self.memory.bytes

    def divide(self) -> None:
        """Makes one batch twice: once to measure the seconds of each part, and once to count FLOPs."""
        device, count = self.memory.device, self.speed.batch_size

        def seconds() -> float:
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            return time.perf_counter()

        meter = PartMeter(seconds)
        self._make(count, MeterParts(meter))
        self.speed.seconds = per_image(meter, count)
        self.speed.network_calls = meter.calls.get(NETWORK)
        with flop_counter() as counter:
            meter = PartMeter(counter.get_total_flops)
            self._make(count, MeterParts(meter))
        self.speed.flops = per_image(meter, count)

    def _make(self, images: int, *callbacks: Callback) -> float:
        """Makes images, removes them again, and returns the seconds that making and storing them took."""
        clock, ranks = RunClock(), world()
        config = OmegaConf.merge(self.config, {"expansion": {"factor": math.ceil(images / len(self.job.sources))}})
        job = replace(self.job, path=self.place, config=config, callbacks=(clock, *callbacks))
        job.claim()
        directory = ExpandedDirectory(self.place)
        started = time.perf_counter()
        with console.silent():
            job.make_missing(
                job.plan, job.share, self.speed.name, False, directory.storage, directory.rows, np.arange(images)
            )
        seconds = clock.seconds if ranks.size == 1 else time.perf_counter() - started
        ranks.once(lambda: shutil.rmtree(self.place))
        if clock.limit is not None:
            self.speed.batch_size = clock.limit
        return seconds


def per_image(meter: PartMeter, images: int) -> dict[str, float]:
    """What each part took for one image, without the parts that took nothing."""
    return {part: amount / images for part, amount in meter.amounts.items() if amount}


def measure(contenders: Sequence[Contender], repeats: int, parts: bool, say: Callable[[str], None]) -> None:
    """Times each row `repeats` times. The rows take turns, in an order that is reversed each time, so that a change in the
    machine's speed meets all of them. `parts`: whether to measure the parts of each row as well."""
    for contender in contenders:
        contender.warm_up()
    for turn in range(repeats):
        for contender in contenders if turn % 2 == 0 else contenders[::-1]:
            contender.time()
        rates = ", ".join(f"{each.speed.name} {each.speed.rates[-1]:.3g}" for each in contenders)
        say(f"turn {turn + 1} of {repeats}, images/s: {rates}")
    if parts:
        for contender in contenders:
            contender.divide()
