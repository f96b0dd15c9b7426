"""Posteriors of many images stay on disk."""

from pathlib import Path

import pytest
import torch

from distdiff.generator.latent_diffusion import Posterior
from distdiff.generator.latents import EncodedLatents, StoredLatents


def batches(dtype: torch.dtype, sizes: tuple[int, ...] = (3, 4, 1)) -> list[Posterior]:
    rng = torch.Generator().manual_seed(0)
    return [Posterior(*torch.randn(2, size, 4, 8, 8, generator=rng, dtype=dtype)) for size in sizes]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_what_is_stored_is_read_row_by_row(tmp_path: Path, dtype: torch.dtype) -> None:
    parts = batches(dtype)
    StoredLatents.write(tmp_path, iter(parts), 8)
    stored = StoredLatents(tmp_path)
    assert len(stored) == 8
    positions = torch.tensor([7, 0, 3, 3])
    found = stored.select(positions)
    for name in ("mean", "std"):
        whole = torch.cat([getattr(part, name) for part in parts])
        torch.testing.assert_close(getattr(found, name), whole[positions], atol=0, rtol=0)
        assert getattr(found, name).dtype == dtype


def test_only_what_is_asked_for_is_read(tmp_path: Path, monkeypatch) -> None:
    StoredLatents.write(tmp_path, iter(batches(torch.float32)), 8)
    stored, read = StoredLatents(tmp_path), []
    opened = open

    class Counting:
        def __init__(self, file):
            self.file = file

        def __enter__(self):
            self.file.__enter__()
            return self

        def __exit__(self, *arguments):
            return self.file.__exit__(*arguments)

        def seek(self, place):
            return self.file.seek(place)

        def readinto(self, row):
            read.append(row.nbytes)
            return self.file.readinto(row)

    monkeypatch.setattr("builtins.open", lambda *arguments: Counting(opened(*arguments)))
    stored.select(torch.tensor([5, 2]))
    assert read == [2 * 4 * 8 * 8 * 4] * 2


def test_a_few_of_many_are_encoded_once_each_when_asked_for() -> None:
    asked: list[int] = []

    class Generator:
        def encode_all(self, images):
            stacked = torch.stack(list(images))
            return Posterior(stacked, stacked * 0)

    def pixels(position: int) -> torch.Tensor:
        asked.append(position)
        return torch.full((3, 2, 2), float(position))

    latents = EncodedLatents(Generator(), pixels)
    assert latents.select(torch.tensor([4, 9, 4])).mean[:, 0, 0, 0].tolist() == [4, 9, 4]
    assert latents.select(torch.tensor([9, 1])).mean[:, 0, 0, 0].tolist() == [9, 1]
    assert asked == [4, 9, 1]
