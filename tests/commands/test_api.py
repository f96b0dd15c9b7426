"""The notebook functions: the same sampler, the same refusals."""

import functools
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning import Trainer
from PIL import Image

import distdiff
from distdiff.api import ImageExpander
from distdiff.classification.networks import ImageClassifier
from distdiff.classification.training import ClassifierTrainer, TrainingSet
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


def test_a_guide_is_by_default_what_the_yaml_file_says(image_folder: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    steps = []

    def untrained(trainer: ClassifierTrainer, fitting: Trainer, data: TrainingSet, seed: int) -> ImageClassifier:
        steps.append(fitting.max_steps)
        return trainer._untrained(data)

    monkeypatch.setattr(ClassifierTrainer, "_fit", untrained)
    images = distdiff.load_images(str(image_folder))
    guides = [distdiff.train_guide(images), distdiff.train_guide(images, classifier="small_cnn", steps=200)]
    assert torch.equal(guides[0].classifier.head.weight, guides[1].classifier.head.weight)
    assert len(list(Path("outputs/cache/classifiers").glob("*/model.safetensors"))) == 1
    assert steps == [200]


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
        (lambda: distdiff.load_generator("sd15x"), "did you mean 'sd15'? one of lcm, random, sd14, sd15,"),
        (lambda: distdiff.load_images("picture"), "root=picture: no such folder"),
        (lambda: distdiff.load_encoder("/nowhere"), "encoder.model=/nowhere: no such file or folder"),
        (
            lambda: distdiff.load_encoder("a/b", kind="clp"),
            "encoder=clp is not allowed: one of clip, efficientnet_lite0, generator, guide, hf",
        ),
        (lambda: distdiff.train_guide(None, steps=0), "steps=0 is not allowed: an integer at least 1"),
        (lambda: distdiff.train_guide(None, members=0), "members=0 is not allowed: a number at least 1, at most 1000"),
        (
            lambda: distdiff.train_guide(None, classifier="cnn"),
            "classifier=cnn is not allowed: one of efficientnet_lite0, resnet18,",
        ),
    ],
)
def test_mistakes_are_one_line(call, words: str) -> None:
    with pytest.raises(UserError) as caught:
        call()
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_importing_leaves_the_settings_of_other_libraries_alone() -> None:
    code = """
import logging, warnings
import diffusers.utils.logging, lightning, transformers.utils.logging
transformers.utils.logging.set_verbosity_info()
def settings():
    bars = diffusers.utils.logging.is_progress_bar_enabled(), transformers.utils.logging.is_progress_bar_enabled()
    levels = [logging.getLogger(f"lightning{part}").level for part in ("", ".pytorch", ".fabric")]
    of_pillow = [item for item in warnings.filters if "PIL" in str(item[3])]
    return bars, levels, transformers.utils.logging.get_verbosity(), of_pillow
before = settings()
import distdiff.api, distdiff.commands.train, distdiff.study.study
assert settings() == before, (before, settings())
assert before[0] == (True, True)
"""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HF_HUB_DISABLE")}
    result = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda make: make()([picture(0)], ["dog"]), "class 'dog' has no prototype: one of cat, train"),
        (lambda make: make()([], []), "at least one image, and a class for each"),
        (lambda make: make()([picture(0)], ["cat", "cat"]), "1 images and 2 classes are not allowed"),
        (lambda make: make()([picture(0)], ["cat"], strength=2.0), "strength=2.0 is not allowed: a number above 0"),
        (lambda make: make()([picture(0)], ["cat"], strength=float("nan")), "strength=nan is not allowed"),
        (
            lambda make: make()([picture(0)], ["cat"], batch_size=0),
            "batch_size=0 is not allowed: an integer at least 1",
        ),
        (lambda make: make(guidance="direct", rho=-1), "guidance.rho=-1.0 is not allowed: a number at least 0"),
        (
            lambda make: make(rho=0.3),
            "guidance.rho=0.3 is not allowed: guidance=none does not read guidance.rho; it is for guidance=chamfer, ",
        ),
        (
            lambda make: make(guidance="direct", roh=1),
            "guidance.roh=1 is not allowed: there is no such key; did you mean",
        ),
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


def test_any_method_makes_images_in_a_notebook(build) -> None:
    cats = [picture(0), picture(1), picture(2)]
    classes = ["cat", "train", "cat"]
    drawn = build(method="text2img")(classes=classes, copies=2)
    assert len(drawn) == 6
    assert all(image.info["sources"] == [] and np.isfinite(image.info["energy_after"]) for image in drawn)
    mixed = build(method="mix", alpha=2.0)(cats, classes, copies=2)
    for position, image in enumerate(mixed):
        weights = image.info["soft_label"]
        assert next(iter(weights)) == classes[position // 2]
        assert sum(weights.values()) == pytest.approx(1)
        assert len(image.info["sources"]) == 2
    likened = build(method="real_guidance")(cats, classes)
    assert [image.info["sources"] for image in likened] == [["cat/0"], ["train/1"], ["cat/2"]]
    for policy in ("randaugment", "affine"):
        turned = build(method="augmentation", policy=policy)(cats, classes)
        assert [image.size for image in turned] == [(32, 32)] * 3
    for policy, words in (("none", "it makes no copy of an image"), ("bogus", "method.policy=bogus is not allowed")):
        with pytest.raises(UserError, match=words):
            build(method="augmentation", policy=policy)
    again = build(method="mix", alpha=2.0)(cats, classes, copies=2, batch_size=1)
    assert all(np.array_equal(one, two) for one, two in zip(mixed, again, strict=True))


def test_images_are_interpolated_in_a_notebook(build, pipeline_folder: Path) -> None:
    generator = distdiff.load_generator(str(pipeline_folder), resolution=32, num_steps=6)
    expander = distdiff.ImageExpander(generator, *build.args[1:], method="interpolation", inversion_steps=3)
    made = expander([picture(0), picture(1), picture(2)], ["cat", "train", "cat"], copies=2)
    assert [image.info["sources"] for image in made[:2]] == [["cat/0", "cat/2"]] * 2
    assert not np.array_equal(made[0], made[1])


def test_an_image_that_cannot_be_read_is_left_out_and_said(
    build, image_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "pictures"
    shutil.copytree(image_folder, folder)
    broken = sorted((folder / "cat").iterdir())[-1]
    broken.write_bytes(broken.read_bytes()[:60])
    images, encoder = distdiff.load_images(str(folder)), build.args[1]
    prototypes = distdiff.fit_prototypes(images, encoder, 32, num_groups=1)
    exemplars = distdiff.fit_exemplars(images, encoder, 32)
    assert capsys.readouterr().out.count(f"1 of {len(images)} training images cannot be read and are left out") == 2
    assert len(exemplars.features) == len(images) - 1
    broken.unlink()
    whole = distdiff.fit_prototypes(distdiff.load_images(str(folder)), encoder, 32, num_groups=1)
    assert torch.equal(prototypes.classes, whole.classes)


def test_an_expander_leaves_the_encoder_as_it_was(pipeline_folder: Path, image_folder: Path) -> None:
    images = distdiff.load_images(str(image_folder))
    generator = distdiff.load_generator(str(pipeline_folder), resolution=32, num_steps=6, dtype="float64")
    encoder = distdiff.train_guide(images, steps=1, members=2)
    assert encoder.feature_dim == 2 * distdiff.train_guide(images, steps=1).feature_dim
    before = {name: tensor.clone() for name, tensor in encoder.state_dict().items()}
    prototypes = distdiff.fit_prototypes(images, encoder, 32)
    expander = distdiff.ImageExpander(generator, encoder, prototypes, guidance="direct")
    expander([picture(0)], ["cat"])
    assert next(expander.energy.encoder.parameters()).dtype == torch.float64
    for name, tensor in encoder.state_dict().items():
        assert tensor.dtype == before[name].dtype
        torch.testing.assert_close(tensor, before[name], atol=0, rtol=0)


@pytest.mark.parametrize("guidance", ["chamfer", "modes", "particles"])
def test_methods_that_compare_with_real_images_work_in_a_notebook(build, image_folder: Path, guidance: str) -> None:
    images = distdiff.load_images(str(image_folder))
    if guidance == "chamfer":
        with pytest.raises(UserError, match=r"guidance=chamfer needs exemplars: exemplars=distdiff.fit_exemplars"):
            build(guidance=guidance)
    exemplars = distdiff.fit_exemplars(images, build.args[1], 32)
    made = build(guidance=guidance, exemplars=exemplars)([picture(0), picture(1)], ["cat", "train"], 0.8, copies=2)
    plain = build(guidance="none")([picture(0), picture(1)], ["cat", "train"], 0.8, copies=2)
    assert len(made) == 4
    assert all(np.abs(np.asarray(a, int) - np.asarray(b, int)).max() >= 1 for a, b in zip(made, plain, strict=True))
    assert ("guidance_exemplar" in made[0].info) == (guidance == "chamfer")


@pytest.mark.parametrize("method", ["real_guidance", "text2img", "mix", "augmentation", "interpolation"])
def test_a_strength_that_a_method_does_not_read_is_refused_in_a_notebook(build, method: str) -> None:
    expander = build(method=method, **({"policy": "randaugment"} if method == "augmentation" else {}))
    with pytest.raises(UserError, match=r"^strength=0.8 is not allowed: \w+ does not read it") as caught:
        expander(None if method == "text2img" else [picture(0)], ["cat"], strength=0.8)
    assert "\n" not in str(caught.value)
    assert ("give ImageExpander strengths=[0.8]" in str(caught.value)) == (method == "real_guidance")


def test_real_guidance_has_the_strengths_that_it_is_given_in_a_notebook(build) -> None:
    likened = build(method="real_guidance", strengths=[0.8])([picture(0)], ["cat"])[0]
    unguided = build(guidance="none")([picture(0)], ["cat"], strength=0.8)[0]
    assert np.abs(np.asarray(likened, int) - np.asarray(unguided, int)).max() <= 1
