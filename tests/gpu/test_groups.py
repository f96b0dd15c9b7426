"""Process groups on the device: NCCL on a card, gloo on the CPU."""

from pathlib import Path

import pytest
import torch
from on_device import expanded
from small_expansion import contents
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel

from distdiff.ranks.arrangement import Rank
from distdiff.ranks.world import World

pytestmark = pytest.mark.gpu


def test_a_process_group_of_one_sums_and_trains_on_the_device(device: torch.device, tmp_path: Path) -> None:
    world = World(Rank(0, 1, 0, 0, str(tmp_path / "store")))
    inputs = torch.linspace(-1, 1, 12, device=device).view(3, 4)
    network = nn.Linear(4, 1).to(device)
    (expected,) = torch.autograd.grad(network(inputs).square().sum(), network.weight)
    with world.process_group():
        backend = distributed.group.WORLD._get_backend(device).name()
        assert backend == {"cuda": "nccl", "cpu": "gloo"}[device.type]
        total = inputs.clone()
        distributed.all_reduce(total)
        parallel = DistributedDataParallel(network)
        parallel(inputs).square().sum().backward()
        torch.testing.assert_close(parallel.module.weight.grad, expected)
    assert torch.equal(total, inputs)


def test_ddp_with_one_rank_makes_the_images_of_one_device(device: torch.device, tmp_path: Path) -> None:
    ddp = [f"trainer={'ddp' if device.type == 'cuda' else 'ddp_cpu'}", "trainer.devices=1"]
    titles = (("alone", []), ("ddp", ddp))
    one, other = (expanded(device, tmp_path, title, "guidance=none", *given) for title, given in titles)
    assert contents(one).keys() == contents(other).keys()
    if device.type == "cpu":  # a card's own arithmetic may differ in the last bit from run to run
        assert contents(one) == contents(other)
