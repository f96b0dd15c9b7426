"""Generators with random weights: the published architectures, the same weights everywhere, and images that vary."""

import json
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import compose
from small_expansion import pixels
from torch import nn

from distdiff.commands.expand import expand
from distdiff.expansion.generators import Generators
from distdiff.generator.location import local_kind, model_path
from distdiff.generator.random_weights import random_pipeline
from distdiff.store.directory import ExpandedDirectory

# As counted in the files on the hub.
AUTOENCODER, VIT_L = 83_653_863, 123_060_480
PUBLISHED = {
    "sd14": {"unet": 859_520_964, "vae": AUTOENCODER, "text_encoder": VIT_L},
    "sdxl": {"unet": 2_567_463_684, "vae": AUTOENCODER, "text_encoder": VIT_L, "text_encoder_2": 694_659_840},
}


def keys(*overrides: str):
    return compose("expand", ["generator=random", *overrides]).generator


def built(name: str, dtype: torch.dtype = torch.float32, device: str = "cpu"):
    model = f"random:{name}"
    return random_pipeline(model_path(model), local_kind(model), dtype, device)


def networks(pipeline) -> dict[str, nn.Module]:
    return {name: part for name, part in pipeline.components.items() if isinstance(part, nn.Module)}


@pytest.mark.parametrize("architecture", PUBLISHED)
def test_every_part_of_an_architecture_has_the_published_number_of_parameters(architecture: str) -> None:
    pipeline = built(architecture, device="meta")
    parts = networks(pipeline)
    counts = {name: sum(weight.numel() for weight in part.parameters()) for name, part in parts.items()}
    assert counts == PUBLISHED[architecture]
    assert local_kind(f"random:{architecture}").pipeline == type(pipeline).__name__


def hashed(number: int) -> int:
    """lowbias32, in Python's own integers."""
    number = ((number ^ number >> 16) * 0x7FEB352D) % 2**32
    number = ((number ^ number >> 15) * 0x846CA68B) % 2**32
    return number ^ number >> 16


def test_weights_depend_on_their_name_and_place_alone() -> None:
    """Oracle: the hash in exact integers. CUDA has the same integer arithmetic (tests/gpu/test_placement.py)."""
    weight = built("toy").unet.conv_in.weight
    stream, bound = zlib.crc32(b"unet.conv_in.weight"), (4 * 9) ** -0.5
    numbers = [hashed((stream + place) % 2**32) for place in range(weight.numel())]
    signed = np.array([number - 2**32 * (number >= 2**31) for number in numbers]) >> 8
    expected = torch.from_numpy(signed.astype(np.float32)) * torch.tensor(bound / 2**23, dtype=torch.float32)
    assert torch.equal(weight.flatten(), expected)
    assert 0.9 * bound < weight.abs().max() < bound
    assert abs(float(weight.std()) * 3**0.5 / bound - 1) < 0.05


def test_weights_are_those_of_float32_rounded_and_no_two_layers_share_them() -> None:
    exact, rounded = built("toy").unet.state_dict(), built("toy", torch.bfloat16).unet.state_dict()
    assert all(torch.equal(tensor.bfloat16(), rounded[name]) for name, tensor in exact.items())
    drawn = [tensor for tensor in exact.values() if tensor.dim() > 1]
    assert len({tensor.flatten()[0].item() for tensor in drawn}) == len(drawn)


def test_a_long_weight_is_made_in_pieces_and_none_repeats(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = built("toy").unet.state_dict()
    monkeypatch.setattr("distdiff.generator.random_weights.CHUNK", 100)
    assert all(torch.equal(tensor, whole[name]) for name, tensor in built("toy").unet.state_dict().items())


def test_an_architecture_and_not_a_file_of_weights_identifies_the_generator() -> None:
    identities = Generators()
    toy, sd14 = (identities.identity(keys(f"generator.architecture={name}")) for name in ("toy", "sd14"))
    assert toy["model"] != sd14["model"]
    assert toy | {"model": None} == sd14 | {"model": None}
    assert "architecture" not in Generators().identity(compose("expand", []).generator)
    written = compose("expand", ["generator=local", "generator.model=random:toy", "generator.resolution=64"]).generator
    assert identities.identity(written)["model"] == toy["model"]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_an_expansion_with_random_weights_has_finite_images_that_vary(dtype: str, tmp_path: Path) -> None:
    given = ["generator=random", f"generator.dtype={dtype}", "generator.num_steps=5", "dataset.per_class=1"]
    given += ["guidance=direct", "expansion.factor=1", "encoder.guide.steps=3", "logger=none"]
    path = expand(compose("expand", [*given, f"paths.output_dir={tmp_path}/outputs"]), tmp_path)
    images = pixels(path)
    assert len(images) == 10
    assert all(image.shape == (64, 64, 3) and 20 < image.std() < 90 for image in images.values())
    assert len({image.tobytes() for image in images.values()}) == 10
    assert ExpandedDirectory(path).manifest()["ingredients"]["generator"]["model"].startswith("random:")
    assert json.loads((tmp_path / "results.json").read_text())["images"] == 10
