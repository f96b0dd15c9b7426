"""A key allows what the library behind it allows: each end of a range is tried in the library, and the next value too."""

import io
import math
from collections.abc import Callable
from dataclasses import dataclass, fields
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from conftest import ROOT, compose
from lightning.fabric.utilities.seed import seed_everything
from PIL import Image
from sklearn.cluster import AgglomerativeClustering
from sklearn.cluster._agglomerative import _TREE_BUILDERS
from sklearn.model_selection import KFold
from torch import nn
from torch.nn import functional as F

from distdiff.classification.augmentations import randaugment, rotate
from distdiff.classification.mixing import cutmix, mixup
from distdiff.classification.optimizers import adamw, sgd
from distdiff.classification.recipe import Recipe
from distdiff.classification.training import ClassifierTrainer
from distdiff.commands.groups import GROUPS
from distdiff.config.command import Command
from distdiff.data.pixels import to_image
from distdiff.errors import UserError
from distdiff.generator.families.base import chosen
from distdiff.generator.kinds import DIFFUSION_SCHEDULERS
from distdiff.generator.schedulers import CLASSES, build_scheduler
from distdiff.keys import Limits
from distdiff.keys.signatures import signature_of
from distdiff.prototypes.clustering import group
from distdiff.ranks.config import PRECISIONS, STRATEGIES
from distdiff.ranks.trainer import build_trainer
from distdiff.store.encoding import ImageEncoding

BY_NAME = {each.name: each for each in GROUPS}
REFUSALS = (ValueError, RuntimeError, TypeError, Image.DecompressionBombError)


def limits_of(place: str) -> Limits:
    """The limits of a key of a group (`train.steps`), of a command (`seed`), or of a target (`a.module.function:key`)."""
    if ":" in place:
        target, name = place.split(":")
        return signature_of(target).keys[name].limits
    owner, _, name = place.rpartition(".")
    schema = BY_NAME[owner].keys if owner else Command("run", GROUPS).schema
    (found,) = (each for each in fields(schema) if each.name == name)
    return Limits(**found.metadata)


def refused(ask: Callable[[Any], Any], value: Any) -> bool:
    try:
        return ask(value) is False
    except REFUSALS:
        return True


def network() -> nn.Module:
    return nn.Linear(2, 2)


def trains(learning_rate: float = 1e-3, weight_decay: float = 0.0) -> bool:
    module = network()
    rates = {"learning_rate": learning_rate, "weight_decay": weight_decay}
    found = adamw(module.parameters(), 1, **rates, schedule="one_cycle", warmup=0.2)
    module(torch.ones(1, 2)).sum().backward()
    found["optimizer"].step()
    found["lr_scheduler"]["scheduler"].step()
    return all(each.isfinite().all() for each in module.parameters())


def trains_with_momentum(momentum: float) -> None:
    keys = {"learning_rate": 0.1, "weight_decay": 0.0, "nesterov": False, "schedule": "cosine", "warmup": 0.0}
    sgd(network().parameters(), 1, momentum=momentum, **keys)


def mixes_zeros_and_ones_or_halves(alpha: float) -> bool:
    """Whether the variance of Beta(α, α) is right: 1 / (4 (2 α + 1))."""
    drawn = torch.distributions.Beta(alpha, alpha).sample((20_000,)).double()
    return math.isclose(drawn.var(), 1 / (4 * (2 * alpha + 1)), rel_tol=0.1, abs_tol=1e-6) and bool(
        (drawn.mean() - 0.5).abs() < 0.02
    )


def normalizes(batch_size: int) -> None:
    nn.BatchNorm2d(2).train()(torch.rand(batch_size, 2, 1, 1))


def opens(side: int) -> None:
    Image._decompression_bomb_check((side, side))


def augments(module: nn.Module) -> bool:
    images = torch.rand(2, 3, 8, 8)
    return module(images).shape == images.shape


def saves(image_format: str, quality: int, least: int = 0) -> bool:
    """Whether the quality is one of the format's own: its file is not that of the nearest quality that is allowed."""
    image = to_image(torch.rand(3, 32, 32, generator=torch.Generator().manual_seed(0)))
    data = ImageEncoding(image_format, quality).encode(image)
    Image.open(io.BytesIO(data)).load()
    nearest = min(max(quality, least), 100)
    return quality == nearest or data != ImageEncoding(image_format, nearest).encode(image)


def weights_sampler(share: float) -> None:
    torch.multinomial(torch.tensor([1.0 - share, share]), 4, replacement=True)


@dataclass(frozen=True)
class Bound:
    """A key at `place`, what asks the library, and values that the library refuses beyond the two ends of the range."""

    place: str
    ask: Callable[[Any], Any]
    below: Any = None
    above: Any = None

    def __str__(self) -> str:
        return self.place


ADAMW, SGD = "distdiff.classification.optimizers.adamw", "distdiff.classification.optimizers.sgd"
AUGMENTATIONS, MIXING = "distdiff.classification.augmentations", "distdiff.classification.mixing"
BOUNDS = [
    Bound(f"{AUGMENTATIONS}.randaugment:num_ops", lambda n: augments(randaugment(num_ops=n, magnitude=9)), 0, 16),
    Bound(f"{AUGMENTATIONS}.randaugment:magnitude", lambda m: augments(randaugment(num_ops=15, magnitude=m)), 0, 30),
    Bound(f"{MIXING}.mixup:alpha", mixes_zeros_and_ones_or_halves, 1e-4, 1e39),
    Bound(f"{MIXING}.cutmix:alpha", mixes_zeros_and_ones_or_halves, 1e-4, 1e39),
    Bound("seed", seed_everything, -1, 2**32),
    Bound("dataset.split_seed", np.random.RandomState, -1, 2**32),
    Bound("dataset.num_folds", KFold, 1),
    Bound("dataset.image_size", opens, above=13_378),
    Bound("generator.resolution", opens, above=13_378),
    Bound("expansion.save_size", opens, above=13_378),
    Bound("expansion.quality", lambda quality: saves("webp", quality), -1, 101),
    Bound(f"{AUGMENTATIONS}.rotate:degrees", lambda d: augments(rotate(degrees=d, horizontal_flip=True)), -1, 361),
    Bound(f"{ADAMW}:learning_rate", lambda rate: trains(learning_rate=rate), above=1e39),
    Bound(f"{ADAMW}:weight_decay", lambda decay: trains(weight_decay=decay), -1e-3, 1e42),
    Bound(f"{SGD}:momentum", trains_with_momentum, -1e-3),
    Bound(
        "train.label_smoothing",
        lambda share: F.cross_entropy(torch.zeros(1, 2), torch.zeros(1, dtype=torch.long), label_smoothing=share),
        above=1.001,
    ),
    Bound("train.synthetic_probability", weights_sampler, -1e-3, 1.001),
    Bound("train.batch_size", normalizes, 1),
    Bound("prototype.num_groups", lambda number: AgglomerativeClustering(number).fit(np.eye(3)), 0),
]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("bound", BOUNDS, ids=str)
def test_both_ends_of_a_range_are_the_librarys_own(bound: Bound) -> None:
    limits = limits_of(bound.place)
    for end in (limits.at_least, limits.at_most):
        if end is not None:
            assert not refused(bound.ask, end), f"the library refuses {end}, which {bound.place} allows"
    for beyond, end in ((bound.below, limits.at_least), (bound.above, limits.at_most)):
        if beyond is not None:
            assert end is not None, f"{bound.place} has no end before {beyond}"
            if isinstance(beyond, int):
                assert abs(beyond - end) == 1, f"{bound.place} ends at {end}, and the library before {beyond}"
            assert refused(bound.ask, beyond), f"the library allows {beyond}, which {bound.place} refuses"


def test_jpeg_has_no_quality_0() -> None:
    assert saves("jpeg", 1, least=1)
    assert saves("jpeg", 100, least=1)
    assert not saves("jpeg", 0, least=1)
    compose("expand", ["expansion.quality=0", "expansion.image_format=webp"])


@pytest.mark.parametrize("place", ["pretrain.autoencoder_learning_rate", "pretrain.denoiser_learning_rate"])
def test_learning_rates_of_pretraining_have_the_same_end(place: str) -> None:
    assert limits_of(place).at_most == limits_of(f"{ADAMW}:learning_rate").at_most


def test_the_guide_has_the_same_ends_as_the_classifier() -> None:
    from distdiff.encoders.config import GuideKeys

    train = {each.name: each.metadata for each in fields(BY_NAME["train"].keys)}
    for each in fields(GuideKeys):
        if each.name in train:
            assert each.metadata == train[each.name], each.name
        if each.name in (own := signature_of(ADAMW).keys):
            assert each.metadata == own[each.name].limits.as_metadata(), each.name


@pytest.mark.parametrize("alpha", [0.01, 1e30])
def test_images_are_mixed_at_both_ends_of_the_concentration(alpha: float) -> None:
    for make in (mixup, cutmix):
        images, targets = make(alpha=alpha, horizontal_flip=True)(torch.rand(4, 3, 8, 8), torch.eye(4))
        assert images.isfinite().all()
        assert torch.allclose(targets.sum(1), torch.ones(4))


@pytest.mark.parametrize("warm_up", [0.1, 0.2])
def test_any_number_of_steps_has_a_learning_rate(warm_up: float) -> None:
    for steps in range(1, 61):
        keys = {"learning_rate": 1.0, "weight_decay": 0.0, "schedule": "one_cycle", "warmup": warm_up}
        found = adamw(network().parameters(), steps, **keys)
        optimizer, schedule = found["optimizer"], found["lr_scheduler"]["scheduler"]
        rates = []
        for _ in range(steps):
            rates.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            schedule.step()
        assert all(0 < rate <= 1 for rate in rates), steps


def test_choices_are_the_librarys_own() -> None:
    from lightning.fabric.connector import _PRECISION_INPUT_STR, _PRECISION_INPUT_STR_ALIAS
    from lightning.pytorch.strategies import StrategyRegistry

    Image.init()
    assert set(limits_of("prototype.linkage").choices) == set(_TREE_BUILDERS)
    assert {name.upper() for name in limits_of("expansion.image_format").choices} <= set(Image.SAVE)
    assert all(
        getattr(torch, name).is_floating_point for name in limits_of("generator.dtype").choices if name != "auto"
    )
    assert set(limits_of("generator.scheduler").choices) == {"auto", *CLASSES}
    assert {*PRECISIONS} == {*_PRECISION_INPUT_STR.__args__, *_PRECISION_INPUT_STR_ALIAS.__args__}
    assert {*STRATEGIES} - {"auto"} <= set(StrategyRegistry.available_strategies())


@pytest.mark.parametrize("linkage", ["average", "complete", "single", "ward"])
@pytest.mark.parametrize("num_groups", [2, 1000, "auto"])
def test_every_linkage_groups_any_number_of_images(linkage: str, num_groups: int | str) -> None:
    for count in (1, 2, 5):
        features = F.normalize(torch.randn(count, 4, generator=torch.Generator().manual_seed(0)), dim=1)
        assert len(group(features, num_groups, 10, linkage, 100, 0)) == count


@pytest.mark.parametrize("precision", [each for each in PRECISIONS if not each.startswith("transformer-engine")])
def test_every_precision_has_a_trainer(precision: str) -> None:
    build_trainer(compose("train", [f"trainer.precision={precision}", "logger=none"]).trainer)


def test_a_precision_without_its_package_is_one_line() -> None:
    pytest.importorskip("lightning")
    if __import__("importlib.util").util.find_spec("transformer_engine"):
        pytest.skip("the package is installed")
    with pytest.raises(UserError, match=r"^trainer: Requirement 'transformer_engine"):
        build_trainer(compose("train", ["trainer.precision=transformer-engine", "logger=none"]).trainer)


def test_each_rank_gets_the_two_images_that_batch_normalization_needs(monkeypatch) -> None:
    """With three ranks and three images in a batch, each rank would normalize a single image."""
    config = compose("train", ["train.batch_size=3", "logger=none"])
    monkeypatch.setattr("distdiff.classification.training.world", lambda: SimpleNamespace(size=3))
    trainer = ClassifierTrainer(Recipe.of(config), config.trainer, cache=None)
    with pytest.raises(UserError, match=r"^train\.batch_size=3 is not allowed: at least 6"):
        trainer.train_together(data=None, seed=0, title="train")


REFUSED = {
    "train trainer.precision=banana": "trainer.precision=banana is not allowed: one of 32-true,",
    "train trainer.strategy=fsdp": "trainer.strategy=fsdp is not allowed: one of auto, ddp,",
    "train trainer.devices=-2": "trainer.devices=-2 is not allowed: a number, a list of indices",
    "train trainer.devices=0": "trainer.devices=0 is not allowed",
    "train trainer.devices=1.5": "trainer.devices=1.5 is not allowed",
    "train trainer.devices=true": "trainer.devices=True is not allowed",
    "train trainer.devices=[]": "trainer.devices=[] is not allowed",
    "train trainer.devices=[1,1]": "trainer.devices=[1, 1] is not allowed",
    "train trainer.devices=[0,-1]": "trainer.devices=[0, -1] is not allowed",
    "train trainer.devices=many": "trainer.devices=many is not allowed",
    "run seed=4294967295": "study.seeds=5 is not allowed: from seed=4294967295 on there are 1 seeds",
    "train augmentation=randaugment augmentation.num_ops=16": "augmentation.num_ops=16 is not allowed: a number at least 1, "
    "at most 15",
    "expand selection=energy selection.ratio=1e300": "selection.ratio=1e+300 is not allowed: a number at least 1, at most",
    "expand expansion.quality=0 expansion.image_format=jpeg": "expansion.quality=0 is not allowed: jpeg begins at 1",
    "expand dataset.image_cache_gb=1e300": "dataset.image_cache_gb=1e+300 is not allowed: a number at least 0, at most",
    "expand paths.image_cache_gb=1e300": "image_cache_gb=1e+300 is not allowed: a number at least 0, at most",
    "train train.batch_size=99999999999999999999": "train.batch_size=99999999999999999999 is not allowed: a number at least 2, "
    "at most 1000000",
    "train train.steps=99999999999999999999": "train.steps=99999999999999999999 is not allowed: a number at least 1, at most",
    "expand expansion.batch_size=1000001": "expansion.batch_size=1000001 is not allowed: an integer at least 1, at most "
    "1000000, or auto",
    "expand encoder=guide encoder.guide.batch_size=1000001": "encoder.guide.batch_size=1000001 is not allowed: a number at "
    "least 2, at most 1000000",
    "expand expansion.factor=1000001": "expansion.factor=1000001 is not allowed: a number at least 1, at most 1000000",
    "pretrain pretrain.image_size=18": "pretrain.image_size=18 is not allowed: a multiple of 8",
    "pretrain pretrain.image_size=40 pretrain.autoencoder_channels=[8,8,8,8,8]": "a multiple of 16, as the autoencoder halves "
    "the sides 4 times",
    "pretrain pretrain.autoencoder_channels=[]": "pretrain.autoencoder_channels=[] is not allowed: one or more multiples of 8",
    "pretrain pretrain.autoencoder_channels=[12]": "pretrain.autoencoder_channels=[12] is not allowed",
    "pretrain pretrain.unet_channels=[]": "pretrain.unet_channels=[] is not allowed: one or more multiples of 16",
    "pretrain pretrain.unet_channels=[16,24]": "pretrain.unet_channels=[16, 24] is not allowed",
    "pretrain pretrain.text_width=56": "pretrain.text_width=56 is not allowed: 3 attention heads",
    "pretrain pretrain.ema_decay=1": "pretrain.ema_decay=1.0 is not allowed",
    "pretrain trainer.precision=bf16-true": "trainer.precision=bf16-true is not allowed here: pretrain.py keeps its weights",
}


@pytest.mark.parametrize("typed", REFUSED)
def test_what_a_library_cannot_do_is_refused_before_anything_loads(typed: str) -> None:
    command, *overrides = typed.split()
    with pytest.raises(UserError) as caught:
        compose(command, overrides)
    assert REFUSED[typed] in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("devices", ["1", "auto", "-1", "[0]", "'0,2'", "[0,2]", "2"])
def test_numbers_and_lists_of_devices_are_allowed(devices: str) -> None:
    compose("train", [f"trainer.devices={devices}", "logger=none"])


@pytest.mark.parametrize("width", [8, 9, 31, 32, 48, 64, 96])
def test_networks_are_built_at_the_ends_that_pretraining_allows(width: int) -> None:
    from distdiff.pretraining.networks import build_autoencoder, build_text_encoder, build_unet
    from distdiff.pretraining.tokenizer import build_tokenizer

    sizes = [
        "image_size=16",
        "autoencoder_channels=[8,8]",
        "unet_channels=[16,16]",
        f"text_width={width}",
        "text_layers=1",
    ]
    keys = compose("pretrain", [f"pretrain.{each}" for each in sizes] + ["pretrain.latent_channels=1"]).pretrain
    tokenizer = build_tokenizer(["a"], num_merges=1)
    autoencoder, unet, text = build_autoencoder(keys), build_unet(keys), build_text_encoder(keys, tokenizer)
    latents = autoencoder.encode(torch.zeros(1, 3, 16, 16)).latent_dist.mean
    words = text(torch.zeros(1, 2, dtype=torch.long))[0]
    assert unet(latents, 1, words).sample.shape == latents.shape


# The noise schedule of Stable Diffusion, as pipelines on the hub describe it.
TRAINED = {"_class_name": "DDIMScheduler", "num_train_timesteps": 1000, "beta_schedule": "scaled_linear"}


@pytest.mark.parametrize("spacing", ["leading", "trailing", "linspace"])
@pytest.mark.parametrize("offset", [0, 1])
@pytest.mark.parametrize("name", DIFFUSION_SCHEDULERS)
def test_a_scheduler_chooses_as_many_different_steps_as_it_is_asked_for(name: str, spacing: str, offset: int) -> None:
    config = TRAINED | {"timestep_spacing": spacing, "steps_offset": offset}
    most = 50 if name == "lcm" else 900
    for number in (1, 2, 3, 4, 30, 50, most):
        scheduler = build_scheduler(name, config)
        if chosen(scheduler, number):
            steps = scheduler.timesteps.tolist()
            assert len(set(steps)) == number
            assert min(steps) >= 0
            assert max(steps) <= 999
        else:
            assert (spacing, number > 60) == ("trailing", True)


@pytest.mark.parametrize(
    ("name", "number"), [("ddim", 1000), ("ddim", 1001), ("dpmpp_2m", 1000), ("unipc", 2000), ("lcm", 51)]
)
def test_too_many_steps_are_refused_with_the_largest_number(name: str, number: int, pipeline_folder) -> None:
    from diffusers import DiffusionPipeline

    from distdiff.generator.latent_diffusion import LatentDiffusion

    pipeline = DiffusionPipeline.from_pretrained(pipeline_folder)
    generator = LatentDiffusion(pipeline, number, 1.0, 32, scheduler=name)
    with pytest.raises(UserError, match=rf"^generator\.num_steps={number} is not allowed: ") as caught:
        generator.check_strength(1.0)
    most = int(str(caught.value).rsplit(" ", 1)[1])
    LatentDiffusion(pipeline, most, 1.0, 32, scheduler=name).check_strength(1.0)
    with pytest.raises(UserError):
        LatentDiffusion(pipeline, most + 1, 1.0, 32, scheduler=name).check_strength(1.0)


def test_the_step_that_trailing_schedules_add_is_refused() -> None:
    """With 61 steps, diffusers rounds to 62, the last of which is -1."""
    assert not chosen(build_scheduler("ddim", TRAINED | {"timestep_spacing": "trailing"}), 61)
    assert chosen(build_scheduler("ddim", TRAINED | {"timestep_spacing": "trailing"}), 62)


def test_the_tiny_generator_allows_its_own_number_of_steps() -> None:
    compose(
        "expand",
        ["generator.num_steps=1", "expansion.strength=1", f"generator.model={ROOT}/distdiff/assets/tiny_digits"],
    )
