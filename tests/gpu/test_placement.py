"""Everything that makes images is on the device, and nothing that does not."""

import gc
from pathlib import Path

import pytest
import torch
from on_device import RANDOM, expanded, needs_a_card
from torch import nn

from distdiff.expansion.module import ExpansionModule
from distdiff.generator.location import local_kind, model_path
from distdiff.generator.random_weights import random_pipeline
from distdiff.methods.synthesis import Synthesized

pytestmark = pytest.mark.gpu


def places(module: nn.Module) -> set[torch.device]:
    return {tensor.device for tensor in (*module.parameters(), *module.buffers())}


def test_what_makes_images_is_on_the_device_and_the_text_encoders_are_not(
    device: torch.device, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make, found, images = ExpansionModule.predict_step, {}, set()

    def watched(module: ExpansionModule, batch: list, number: int) -> Synthesized:
        sampler = module.synthesizer
        prompts = sampler.prompts.positive.tokens.device
        found.update({name: places(part) for name, part in sampler.named_children()} | {"prompts": {prompts}})
        found["energy"] = places(sampler.image_energy.energy)
        for name in sampler.generator.family.text_encoders:
            found[name] = places(getattr(sampler.generator.family.pipeline, name))
        made = make(module, batch, number)
        images.add(made.images.device)
        return made

    monkeypatch.setattr(ExpansionModule, "predict_step", watched)
    for guidance in ("direct", "none"):  # the second finds its prompts embedded, so it does not use the text encoder
        found.clear()
        expanded(device, tmp_path, guidance, *RANDOM, f"guidance={guidance}")
        assert found.pop("text_encoder") == {torch.device("cpu")}
        assert found.keys() == {"generator", "image_energy", "energy", "prompts"}
        assert {*images}.union(*found.values()) == {device}


def test_random_weights_are_those_of_the_cpu(device: torch.device) -> None:
    needs_a_card(device, "the CPU's weights are compared with a card's")
    model = "random:toy"
    for dtype in (torch.float32, torch.float16):
        pipelines = [random_pipeline(model_path(model), local_kind(model), dtype, where) for where in (device, "cpu")]
        for name in ("unet", "vae", "text_encoder"):
            one, other = (getattr(pipeline, name).state_dict() for pipeline in pipelines)
            assert all(torch.equal(tensor.cpu(), other[key]) for key, tensor in one.items()), name


def test_an_expansion_leaves_nothing_on_the_card(device: torch.device, tmp_path: Path) -> None:
    needs_a_card(device, "the CPU's memory is shared with all else")
    large = ["generator=random", "generator.architecture=sd14", "guidance=direct"]
    expanded(device, tmp_path, "first", *large)  # loads libraries' own work space
    gc.collect()
    before = torch.cuda.memory_allocated()
    expanded(device, tmp_path, "second", *large, "seed=1")
    gc.collect()
    assert torch.cuda.memory_allocated() - before < 1e7
    assert before < 1e9  # the network alone has 3.4e9 bytes
