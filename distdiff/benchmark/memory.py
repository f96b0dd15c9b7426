"""The most memory that a block takes: the device's, or the process's resident memory where images are made on the CPU."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import torch

RESET_PEAK = "5"  # Linux: what resets the peak of a process's resident memory, see proc_pid_clear_refs(5)


class PeakMemory:
    """`with peak.measured(): ...` raises `peak.bytes` to the block's peak; None where the system does not say it."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.bytes: int | None = None

    @contextmanager
    def measured(self) -> Iterator[None]:
        self._reset()
        try:
            yield
        finally:
            found = self._peak()
            if found is not None:
                self.bytes = max(found, self.bytes or 0)

    def _reset(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        elif self.device.type == "cpu":
            with suppress(OSError):
                Path("/proc/self/clear_refs").write_text(RESET_PEAK)

    def _peak(self) -> int | None:
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device)
        if self.device.type == "cpu":
            with suppress(OSError, StopIteration):
                status = Path("/proc/self/status").read_text().splitlines()
                kilobytes = next(line.split()[1] for line in status if line.startswith("VmHWM:"))
                return int(kilobytes) * 1024
        return None
