"""While a batch is denoised, the program never waits for the card, so that the card never waits for the program."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from on_device import job

from distdiff.generator.precision import whole_float32

pytestmark = pytest.mark.gpu


@contextmanager
def refusing_to_wait(device: torch.device) -> Iterator[None]:
    """On a card, whatever waits for it inside the block is an error. On the CPU there is nothing to wait for."""
    if device.type != "cuda":
        yield
        return
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("scheduler", ["ddim", "dpmpp_2m", "euler"])
@pytest.mark.parametrize("guidance", ["none", "direct", "mpgd", "transform"])
def test_no_denoising_step_waits_for_the_card(
    device: torch.device, tmp_path: Path, guidance: str, scheduler: str
) -> None:
    keys = [
        "generator=random",
        "generator.architecture=toy",
        "generator.resolution=32",
        f"generator.scheduler={scheduler}",
    ]
    expansion = job(device, tmp_path, *keys, f"guidance={guidance}")
    sampler = expansion.synthesizer("test").to(device)
    items = [expansion.plan[index] for index in range(2)]

    def denoised(watched: torch.device) -> torch.Tensor:
        generators = [torch.Generator().manual_seed(item.seed) for item in items]
        batch = sampler.batch(items, generators)
        noisy = sampler.first_latents(items, batch, generators)
        batch.denoiser.predict(noisy, batch.schedule.first)  # the tables of a batch are copied to the card here
        for name in vars(batch.denoiser.levels):
            batch.denoiser._level(name, 0, noisy)
        with refusing_to_wait(watched):
            return sampler.denoise(noisy, batch)[0]

    with torch.no_grad(), whole_float32(torch.float32):
        expected = denoised(torch.device("cpu"))  # libraries choose their algorithms, and may wait, the first time
        torch.testing.assert_close(denoised(device), expected)
