"""A batch that does not fit into memory is halved, and nothing is lost."""

import pytest
import torch

from distdiff.errors import UserError
from distdiff.expansion.memory import WithinMemory, ran_out_of_memory
from distdiff.methods.synthesis import Synthesized, Synthesizer


class Greedy(Synthesizer):
    def __init__(self, fits: int, error: BaseException) -> None:
        super().__init__()
        self.fits, self.error, self.sizes = fits, error, []

    def forward(self, items: list[int]) -> Synthesized:
        self.sizes.append(len(items))
        if len(items) > self.fits:
            raise self.error
        return Synthesized(torch.tensor(items).float().view(-1, 1, 1, 1), {"number": list(items)})


OUT_OF_MEMORY = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes."),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate"),
    MemoryError(),
]


def test_out_of_memory_halves_the_batch_for_good_and_loses_nothing(capsys) -> None:
    greedy = Greedy(3, OUT_OF_MEMORY[0])
    within = WithinMemory(greedy)
    for first in (0, 9):
        items = list(range(first, first + 9))
        made = within(items)
        assert made.columns == {"number": items}
        assert made.images.flatten().tolist() == items
    assert greedy.sizes == [9, 4, 2, 2, 2, 2, 1, 2, 2, 2, 2, 1]
    said = [line for line in capsys.readouterr().out.splitlines() if "memory" in line]
    assert said == [
        "out of memory with 9 images at a time; going on with 4",
        "out of memory with 4 images at a time; going on with 2",
    ]
    with pytest.raises(UserError, match=r"generator.gradient_checkpointing=true.*resolution.*expansion.batch_size"):
        WithinMemory(Greedy(0, OUT_OF_MEMORY[0]))([1])


def test_memory_that_torch_itself_cannot_get_is_recognised_and_other_errors_are_not() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60)
    assert all(map(ran_out_of_memory, [caught.value, *OUT_OF_MEMORY]))
    assert not ran_out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    with pytest.raises(RuntimeError, match="shapes"):
        WithinMemory(Greedy(0, RuntimeError("shapes")))([1, 2])
