"""What the guidance methods that compare new images with real ones need, cost and declare."""

import sys
from pathlib import Path

import pytest
import torch
from bench import smooth_classifier
from conftest import compose, compose_once
from omegaconf import OmegaConf
from pipelines import small_pipeline
from rivals import RIVALS, items, sampler

from distdiff.encoders.guide import GuideEncoder
from distdiff.errors import UserError
from distdiff.methods.building import build_method


@pytest.mark.parametrize(
    ("name", "size"),
    [("chamfer", None), ("modes", None), ("deviation", None), ("particles", 5), ("feedback", None), ("gif", 2)],
)
def test_a_method_makes_the_copies_together_that_its_guidance_declares(name: str, size: int | None) -> None:
    assert build_method(compose_once("expand", [f"guidance={name}"])).group_size == size
    if name in ("chamfer", "deviation"):
        together = build_method(compose_once("expand", [f"guidance={name}", "guidance.group_size=3"]))
        assert (together.group_size, together.together) == (3, True)


def test_a_method_without_guidance_makes_no_copies_together() -> None:
    method = OmegaConf.to_container(compose_once("expand", ["method=text2img"]).method)
    assert not build_method(OmegaConf.create({"method": method, "guidance": {"group_size": 2}})).together


def test_a_period_may_be_as_long_as_all_steps_that_run() -> None:
    """At strength 0.5 of 30 steps, 15 run; the other methods begin later and refuse more than 12."""
    steps = ["generator.num_steps=30", "expansion.strength=0.5"]
    for name in ("chamfer", "modes"):
        assert compose("expand", [f"guidance={name}", "guidance.period=15", *steps]).guidance.period == 15
    with pytest.raises(UserError, match=r"guidance.period=16 is not allowed: from start_step 15 on"):
        compose("expand", ["guidance=chamfer", "guidance.period=16", *steps])
    with pytest.raises(UserError, match=r"guidance.period=15 is not allowed: from start_step 12 on"):
        compose("expand", ["guidance=direct", "guidance.period=15", *steps])


def test_a_method_that_needs_something_unknown_is_refused_in_one_line(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "asking.py").write_text(
        "from distdiff.guidance.none import Unguided\n\n"
        "class Asking(Unguided):\n    def __init__(self, real_sounds, *, loud: bool = True) -> None: ...\n"
    )
    (tmp_path / "guidance").mkdir()
    (tmp_path / "guidance" / "asking.yaml").write_text("_target_: asking.Asking\nname: asking\n")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    with pytest.raises(UserError) as refused:
        compose("expand", [f"hydra.searchpath=['file://{tmp_path}']", "guidance=asking"])
    assert str(refused.value) == (
        "guidance=asking needs 'real_sounds', which is not available; a guidance method may ask for real_features, real_latents"
    )


@pytest.mark.parametrize("name", RIVALS)
def test_an_image_costs_as_many_evaluations_as_without_guidance_and_the_backward_passes_that_the_page_says(
    name,
) -> None:
    """Oracle: counting. At strength 0.75 of 8 steps, N = 6 run; each fifth is ⌈6/5⌉ = 2 of them."""
    make = sampler(small_pipeline(), "ddim", GuideEncoder(smooth_classifier()), name, num_steps=8)
    evaluations, decodings = [], []
    make.generator.network.register_forward_hook(lambda *_: evaluations.append(torch.is_grad_enabled()))
    make.generator.vae.decoder.register_forward_hook(lambda *_: decodings.append(torch.is_grad_enabled()))
    make(items(2, labels=1))
    through_network = {"chamfer": 2, "feedback": 2}.get(name, 0)
    assert len(evaluations) == 6
    assert sum(evaluations) == through_network
    assert sum(decodings) == (1 if name == "gif" else through_network)
    # One for the energy of the first guided step (also without guidance), unless the objective has it; one at the end.
    assert len(decodings) - sum(decodings) == (1 if through_network else 2)
