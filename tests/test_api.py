"""The notebook functions: the same sampler, the same refusals."""

import functools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import distdiff
from distdiff.api import ImageExpander
from distdiff.errors import UserError
from distdiff.guidance.direct import Direct


@pytest.fixture
def build(pipeline_folder: Path, image_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable:
    monkeypatch.chdir(tmp_path)
    images = distdiff.load_images(str(image_folder))
    generator = distdiff.load_generator(str(pipeline_folder), resolution=32, num_steps=4)
    encoder = distdiff.train_guide(images, steps=3)
    prototypes = distdiff.fit_prototypes(images, encoder, 32, num_groups="auto", max_groups=3)
    return functools.partial(distdiff.ImageExpander, generator, encoder, prototypes)


@pytest.fixture
def expander(build) -> ImageExpander:
    return build(guidance="tfg", rho=0.5)


def picture(value: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(value).integers(0, 256, (50, 40, 3), dtype=np.uint8))


def test_an_image_depends_on_its_seed_and_place_not_on_the_batch(expander: ImageExpander) -> None:
    images, classes = [picture(0), picture(1), picture(2)], ["cat", "train", "cat"]
    together = expander(images, classes, strength=0.8, copies=2)
    one_by_one = expander(images, classes, strength=0.8, copies=2, batch_size=1)
    assert len(together) == 6
    for a, b in zip(together, one_by_one, strict=True):
        assert np.abs(np.asarray(a, int) - np.asarray(b, int)).max() <= 1
    assert np.abs(np.asarray(together[0], int) - np.asarray(together[1], int)).max() > 1
    other = expander(images[:1], classes[:1], strength=0.8, seed=1)[0]
    assert np.abs(np.asarray(together[0], int) - np.asarray(other, int)).max() > 1


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: distdiff.load_generator("/nowhere"), "generator.model=/nowhere: no such file or folder"),
        (
            lambda: distdiff.load_generator("tiny_digits", num_stepps=3),
            "generator.num_stepps=3 is not allowed: there is no",
        ),
        (
            lambda: distdiff.load_generator("tiny_digits", num_steps=0),
            "generator.num_steps=0 is not allowed: a number at",
        ),
        (
            lambda: distdiff.load_generator("tiny_digits", num_steps="x"),
            "generator.num_steps=x is not allowed: an integer",
        ),
        (
            lambda: distdiff.load_generator("tiny_digits", scheduler="flow_euler"),
            "for a Stable Diffusion model, one of auto",
        ),
        (lambda: distdiff.load_generator("sd15x"), "did you mean 'sd15'? one of lcm, sd14, sd15,"),
        (lambda: distdiff.load_images("picture"), "root=picture: no such folder"),
        (lambda: distdiff.load_encoder("/nowhere"), "encoder.model=/nowhere: no such file or folder"),
    ],
)
def test_mistakes_are_one_line(call, words: str) -> None:
    with pytest.raises(UserError) as caught:
        call()
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda make: make()([picture(0)], ["dog"]), "class 'dog' has no prototype: one of cat, train"),
        (lambda make: make()([], []), "at least one image, a class each"),
        (lambda make: make()([picture(0)], ["cat", "cat"]), "1 images and 2 classes are not allowed"),
        (lambda make: make()([picture(0)], ["cat"], strength=2.0), "strength=2.0 is not allowed: a number above 0"),
        (lambda make: make()([picture(0)], ["cat"], strength=float("nan")), "strength=nan is not allowed"),
        (
            lambda make: make()([picture(0)], ["cat"], batch_size=0),
            "batch_size=0 is not allowed: an integer at least 1",
        ),
        (lambda make: make(rho=-1), "guidance.rho=-1.0 is not allowed: a number at least 0"),
        (
            lambda make: make(guidance=Direct(rho=0.3), rho=3),
            "rho: give a guidance of your own its keys when you make it",
        ),
        (lambda make: make(prompt_template="photo"), "it needs {} where the class name goes"),
    ],
)
def test_mistakes_with_an_expander_are_one_line(build, call, words: str) -> None:
    with pytest.raises(UserError) as caught:
        call(build)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
