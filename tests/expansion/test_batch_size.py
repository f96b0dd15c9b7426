"""`expansion.batch_size=auto` takes as many images as memory holds, from the peaks with one and with two images."""

from collections.abc import Callable

import pytest
import torch
from conftest import compose
from torch import nn

from distdiff.errors import UserError
from distdiff.expansion import batch_size as batch_size_module
from distdiff.expansion.batch_size import batch_size_for, largest_batch, settled_batch_size, usual_batch_size

GB = 10**9
TWO = ["first", "second"]  # what the items are does not matter here


class Pretended:
    """A device with `total` bytes, of which the models take `models` and each image `each`."""

    def __init__(self, total: float, models: float, each: float) -> None:
        self.total, self.models, self.each = total, models, each
        self.batch: list[str] = []

    def available(self) -> int:
        return int(self.total)

    def peak(self, call: Callable[[], object]) -> int:
        call()
        return int(self.models + self.each * len(self.batch))

    def synthesizer(self, items: list[str]) -> None:
        self.batch = items
        if self.models + self.each * len(items) > self.total:
            raise torch.OutOfMemoryError("CUDA out of memory")


class Checkpointing(Pretended):
    """Such a device, and a synthesizer whose images take `saving` bytes if gradients are checkpointed."""

    def __init__(self, total: float, models: float, each: float, saving: float) -> None:
        super().__init__(total, models, each)
        self.sizes = {True: saving, False: each}
        self.checkpoints: bool | None = None
        self.generator = self

    def checkpoint_gradients(self, on: bool) -> None:
        self.checkpoints, self.each = on, self.sizes[on]

    def __call__(self, items: list[str]) -> None:
        self.synthesizer(items)


@pytest.mark.parametrize(
    ("total", "models", "each", "expected"),
    [
        (80 * GB, 4 * GB, 5 * GB, 13),  # (72 − 4) / 5
        (80 * GB, 4 * GB, 0.5 * GB, 32),  # the largest
        (24 * GB, 4 * GB, 8 * GB, 2),
        (24 * GB, 4 * GB, 9.9 * GB, 1),  # two fit, but not with what is held back
        (10 * GB, 4 * GB, 5 * GB, 1),  # two do not fit
        (6 * GB, 4 * GB, 5 * GB, 1),  # not even one: the expansion itself says so
        (8 * GB, 4 * GB, 0, 32),
    ],
)
def test_the_batch_fits_with_a_tenth_to_spare(total: float, models: float, each: float, expected: int) -> None:
    device = Pretended(total, models, each)
    size = largest_batch(device.synthesizer, TWO, device, largest=32)
    assert size == expected
    assert models + each * size <= 0.9 * total or size == 1


@pytest.mark.parametrize(
    ("each", "saving", "typed", "expected", "checkpoints"),
    [
        (2 * GB, 1 * GB, "auto", 32, False),  # (72 − 4) / 2 without checkpointing
        (8 * GB, 4 * GB, "auto", 8, False),
        (10 * GB, 4 * GB, "auto", 17, True),  # 6 would be too few
        (90 * GB, 4 * GB, "auto", 17, True),  # not even one
        (8 * GB, 4 * GB, 4, 4, False),  # a batch size that was typed stays
        (20 * GB, 4 * GB, 4, 4, True),
    ],
)
def test_gradients_are_checkpointed_only_where_memory_needs_it(
    each, saving, typed, expected, checkpoints, capsys
) -> None:
    device = Checkpointing(80 * GB, 4 * GB, each, saving)
    config = compose(
        "expand", ["generator=sd15", f"expansion.batch_size={typed}", "generator.gradient_checkpointing=auto"]
    )
    assert settled_batch_size(config, device, TWO, device) == expected
    assert device.checkpoints == checkpoints
    words = ", with gradients checkpointed" if checkpoints else ""
    assert capsys.readouterr().out == f"batches of {expected} fit into the 80 GB of memory{words}\n"


@pytest.mark.parametrize("choice", ["true", "false"])
def test_a_choice_that_was_typed_stays(choice: str) -> None:
    device = Checkpointing(80 * GB, 4 * GB, 20 * GB, 4 * GB)
    config = compose("expand", ["generator=sd15", f"generator.gradient_checkpointing={choice}"])
    assert settled_batch_size(config, device, TWO, device) == 3
    assert device.checkpoints is None


def test_other_errors_are_not_taken_for_a_lack_of_memory() -> None:
    def broken(items):
        raise RuntimeError("shapes do not match")

    with pytest.raises(RuntimeError, match="shapes"):
        largest_batch(broken, TWO, Pretended(GB, 0, 0), largest=32)


def test_a_single_image_needs_no_trial() -> None:
    assert largest_batch(None, TWO[:1], None, largest=32) == 1


def test_on_the_cpu_auto_is_the_generators_usual_number_and_a_number_is_always_itself() -> None:
    for overrides, expected in (([], 100), (["generator=sd15"], 4), (["expansion.batch_size=7"], 7)):
        config = compose("expand", overrides)
        assert batch_size_for(config, None, TWO, torch.device("cpu")) == usual_batch_size(config) == expected
    typed = compose("expand", ["expansion.batch_size=7"])
    assert batch_size_for(typed, nn.Identity(), TWO, torch.device("cuda")) == 7


@pytest.mark.parametrize("value", ["null", "1", "maybe"])
def test_checkpointing_is_true_false_or_auto(value: str) -> None:
    with pytest.raises(UserError, match=rf"gradient_checkpointing={value} is not allowed: one of true, false, auto"):
        compose("expand", [f"generator.gradient_checkpointing={value}"])


def test_the_trial_is_made_where_the_expansion_will_be(monkeypatch: pytest.MonkeyPatch) -> None:
    """An energy that is still on the CPU could not take images of the GPU."""

    class OnCpu(nn.Module):
        place = torch.device("cpu")

        def to(self, device: torch.device) -> "OnCpu":
            self.place = device
            return self

        def forward(self, items: list[str]) -> None:
            assert self.place.type == "cuda"
            memory.batch = items

    memory = Pretended(80 * GB, 4 * GB, 5 * GB)
    monkeypatch.setattr(batch_size_module, "GpuMemory", lambda device: memory)
    assert batch_size_for(compose("expand", []), OnCpu(), TWO, torch.device("cuda")) == 13


@pytest.mark.parametrize("value", ["0", "atuo", "1.5", "null", "[1]"])
def test_anything_else_is_refused_in_one_line(value: str) -> None:
    with pytest.raises(UserError, match=r"^expansion\.batch_size") as raised:
        compose("expand", [f"expansion.batch_size={value}"])
    assert "\n" not in str(raised.value)
