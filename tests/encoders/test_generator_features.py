"""`encoder=generator`: what the middle of the generator's denoising network holds, for every kind of model."""

import gc
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path

import pytest
import torch
from conftest import compose
from diffusers import DDPMScheduler
from pipelines import FAMILIES
from safetensors import safe_open
from torch import nn
from torch.nn import functional as F

import distdiff
from distdiff.caching.stages import StageCache
from distdiff.classification.training import few_shot_training_set
from distdiff.data.datasets import load_dataset
from distdiff.encoders.generator import NOISE_SEED, GeneratorEncoder, GeneratorFeatures
from distdiff.encoders.source import EncoderContext, GeneratorInUse
from distdiff.errors import UserError
from distdiff.expansion.assembly import Assembly
from distdiff.expansion.generators import Generators
from distdiff.expansion.job import ExpansionJob
from distdiff.generator.latent_diffusion import LatentDiffusion
from distdiff.store.reading import read_expanded


def encoder_of(family: str, noise_level: float = 0.3, pool_size: int = 2, dtype=torch.float64) -> GeneratorEncoder:
    generator = LatentDiffusion(FAMILIES[family]().to(dtype), 4, 2.0, 32)
    return GeneratorEncoder(lambda: generator, noise_level, pool_size)


def unit_noise() -> torch.Tensor:
    return torch.randn((4, 8, 8), generator=torch.Generator().manual_seed(NOISE_SEED)).double()


def clean_latents(generator: LatentDiffusion, images: torch.Tensor) -> torch.Tensor:
    """The mean of the posterior, as diffusers' pipelines scale it."""
    mean, config = generator.vae.encode(images * 2 - 1).latent_dist.mean, generator.vae.config
    if getattr(config, "latents_mean", None) is not None:
        each = (torch.tensor(values).double().view(1, -1, 1, 1) for values in (config.latents_mean, config.latents_std))
        mean = (mean - next(each)) / next(each)
    return (mean - (getattr(config, "shift_factor", None) or 0)) * config.scaling_factor


@torch.no_grad()
@pytest.mark.parametrize("family", ["sd", "sd_v", "sdxl", "lcm"])
def test_features_of_a_unet_are_means_of_what_its_middle_block_gives(family: str) -> None:
    """Against a whole pass through the network, whose middle block is watched."""
    encoder, images = encoder_of(family), torch.rand(3, 3, 32, 32, dtype=torch.float64)
    generator, seen = encoder.generator, []
    step = round(0.3 * 999)
    schedule = DDPMScheduler.from_config(generator.scheduler_config)
    signal = schedule.alphas_cumprod[step].double()
    noisy = signal.sqrt() * clean_latents(generator, images) + (1 - signal).sqrt() * unit_noise()
    hook = generator.network.mid_block.register_forward_hook(lambda module, given, hidden: seen.append(hidden))
    generator.family.output(noisy, torch.tensor(step), generator.embed([""]).positive.expand(3))
    hook.remove()
    height, width = (side // 2 for side in seen[0].shape[-2:])
    cells = seen[0].unflatten(3, (2, width)).unflatten(2, (2, height)).mean((3, 5)).flatten(1)
    assert cells.shape[1] == encoder.feature_dim
    torch.testing.assert_close(encoder(images), F.normalize(cells, dim=1), rtol=1e-5, atol=1e-7)


@torch.no_grad()
def test_features_of_a_transformer_are_means_of_the_image_tokens_between_its_halves() -> None:
    encoder, images = encoder_of("sd3", pool_size=4), torch.rand(3, 3, 32, 32, dtype=torch.float64)
    generator, seen = encoder.generator, []
    noisy = 0.7 * clean_latents(generator, images) + 0.3 * unit_noise()
    first, _ = generator.network.transformer_blocks
    hook = first.register_forward_hook(lambda module, given, output: seen.append(output[1]))
    generator.family.output(noisy, torch.tensor(300.0), generator.embed([""]).positive.expand(3))
    hook.remove()
    (tokens,) = seen  # 4 x 4 patches, row by row
    assert (tokens.shape[1], tokens[0].numel()) == (16, encoder.feature_dim)
    torch.testing.assert_close(encoder(images), F.normalize(tokens.transpose(1, 2).flatten(1), dim=1))


@pytest.mark.parametrize("family", ["sd", "sd3"])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_the_gradient_is_the_finite_difference_and_the_rest_of_the_network_is_left_out(
    family: str, checkpointing: bool
) -> None:
    encoder = encoder_of(family)
    generator = encoder.generator
    generator.checkpoint_gradients(checkpointing)
    generator.network.train(
        checkpointing
    )  # diffusers checkpoints in training mode; there is no dropout in these networks
    last = generator.network.conv_norm_out if family == "sd" else generator.network.norm_out
    last.register_forward_hook(lambda *given: pytest.fail("the whole network was computed"))
    images = torch.rand(2, 3, 40, 40, dtype=torch.float64, requires_grad=True)
    features = encoder(images)
    towards = torch.randn_like(features)
    (gradient,) = torch.autograd.grad((features * towards).sum(), images)
    direction, size = F.normalize(torch.randn_like(images), dim=(1, 2, 3)), 1e-5
    with torch.no_grad():
        ends = [(encoder(images + sign * size * direction) * towards).sum() for sign in (1, -1)]
    assert gradient.abs().sum() > 0
    torch.testing.assert_close((gradient * direction).sum(), (ends[0] - ends[1]) / (2 * size), rtol=1e-5, atol=1e-9)


def test_converting_or_moving_the_encoder_leaves_the_generator_as_it_is() -> None:
    encoder = encoder_of("sd", dtype=torch.bfloat16)
    images = torch.rand(2, 3, 32, 32)
    before = encoder(images)
    assert (encoder(images.double()).dtype, before.dtype) == (torch.float64, torch.float32)
    torch.testing.assert_close(encoder.to("meta", torch.float64)(images), before, rtol=0, atol=0)
    assert {(tensor.dtype, tensor.device.type) for tensor in encoder.generator.state_dict().values()} == {
        (torch.bfloat16, "cpu")
    }
    assert encoder.device == torch.device("cpu")
    nn.ModuleList([encoder]).train()
    assert not any(module.training for module in encoder.generator.modules())


@pytest.mark.parametrize("family", ["sd", "sd3"])
def test_in_half_precision_the_gradient_points_where_it_does_in_float32(family: str) -> None:
    images = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0)).requires_grad_()
    gradients = []
    for dtype in (torch.float32, torch.bfloat16):
        features = encoder_of(family, dtype=dtype)(images)
        towards = torch.randn(features.shape, generator=torch.Generator().manual_seed(1))
        gradients += torch.autograd.grad((features * towards).sum(), images)
    assert F.cosine_similarity(*(gradient.flatten(1) for gradient in gradients)).min() > 0.98


def test_without_a_gradient_the_autoencoder_sees_no_more_images_than_its_memory_holds(monkeypatch) -> None:
    encoder, images, seen = encoder_of("sd"), torch.rand(5, 3, 32, 32, dtype=torch.float64), []
    together = encoder(images)
    monkeypatch.setattr("distdiff.generator.latent_diffusion.ENCODE_PIXELS", 2 * 32**2)
    encode = encoder.generator.vae.encode
    monkeypatch.setattr(encoder.generator.vae, "encode", lambda pixels: seen.append(len(pixels)) or encode(pixels))
    torch.testing.assert_close(encoder(images), together)
    assert seen == [2, 2, 1]


def test_the_encoder_keeps_no_generator_in_memory_and_finds_one_that_was_moved() -> None:
    loads = []

    def load() -> LatentDiffusion:
        loads.append(LatentDiffusion(FAMILIES["sd"](), 4, 2.0, 32))
        return loads[-1]

    encoder, images = GeneratorEncoder(load, 0.1, 4), torch.rand(2, 3, 32, 32)
    before = encoder(images)
    assert len(loads) == 1
    assert deepcopy(encoder).generator is loads[0]
    loads[0] = None  # another generator has taken its place
    gc.collect()
    torch.testing.assert_close(encoder(images), before, rtol=0, atol=0)
    assert len(loads) == 2
    loads[1].network.to("meta")  # as Lightning moves a generator after a prediction
    torch.testing.assert_close(encoder(images), before, rtol=0, atol=0)
    assert len(loads) == 3


def test_a_generator_loaded_in_python_gives_its_features() -> None:
    generator = distdiff.load_generator("tiny_digits")
    encoder, images = distdiff.load_encoder(kind="generator", generator=generator), torch.rand(2, 3, 32, 32)
    assert encoder.generator is generator
    torch.testing.assert_close(encoder(images), GeneratorEncoder(lambda: generator, 0.1, 4)(images), rtol=0, atol=0)
    with pytest.raises(UserError, match=r"^generator is not allowed with kind=hf"):
        distdiff.load_encoder(generator=generator)
    with pytest.raises(UserError, match=r"^generator='tiny_digits' is not allowed: what distdiff.load_generator"):
        distdiff.load_encoder(kind="generator", generator="tiny_digits")
    with pytest.raises(UserError, match=r"^encoder=generator is not allowed here: it needs a generator"):
        distdiff.load_encoder(kind="generator")


@pytest.fixture
def assembled(small_run: list[str], image_folder: Path) -> Callable[..., tuple[Assembly, ExpansionJob]]:
    """The expansion of a folder with this encoder."""

    def make(*overrides: str) -> tuple[Assembly, ExpansionJob]:
        given = [item for item in small_run if not item.startswith("encoder.guide.")]
        given += ["dataset=imagefolder", f"dataset.root={image_folder}", "expansion.factor=1", "encoder=generator"]
        config = compose("expand", [*given, *overrides])
        data = few_shot_training_set(config, load_dataset(config.dataset).train, config.seed)
        assembly = Assembly(config, StageCache(config.paths.cache_dir))
        return assembly, assembly.job(data, config.seed)

    return make


def images_of(job: ExpansionJob) -> dict[str, bytes]:
    job.run("expand")
    made = read_expanded(job.path, None, job.contents)
    return {key: made.file(place).read() for place, key in enumerate(made.keys)}


def test_an_expansion_is_guided_by_it_and_trains_nothing(assembled, tmp_path: Path) -> None:
    unguided = images_of(assembled("guidance=none")[1])
    assembly, job = assembled("guidance=direct", "guidance.rho=5")
    guided = images_of(job)
    assert guided.keys() == unguided.keys()
    assert all(guided[key] != unguided[key] for key in guided)
    assert not list((tmp_path / "outputs/cache").glob("classifiers/[0-9a-f]*"))
    (prototypes,) = (tmp_path / "outputs/cache/prototypes").glob("[0-9a-f]*/prototypes.safetensors")
    with safe_open(prototypes, "pt") as file:
        assert file.get_tensor("classes").shape == (2, assembly.encoders.encoder(None, 0, "").feature_dim)
    assert assembly.encoders.is_ready(None, 0)


def test_a_selection_without_guidance_sees_these_features(assembled) -> None:
    candidates = images_of(assembled("guidance=none", "expansion.factor=2")[1])
    chosen = images_of(assembled("guidance=none", "selection=energy")[1])
    assert len(chosen) == len(candidates) // 2
    assert {*chosen.values()} < {*candidates.values()}


def test_what_changes_features_changes_the_identity_and_nothing_else_does(small_run: list[str]) -> None:
    config = compose("expand", small_run)
    whole = dict(Generators().identity(config.generator))
    read = {"model", "checkpoint_config", "variant", "use_t5", "lora", "dtype", "resolution", "cfg_scale"}
    assert read < whole.keys()

    def identity(of_generator: dict[str, object], noise_level: float = 0.1, pool_size: int = 4) -> str:
        class InUse(GeneratorInUse):
            def identity(self) -> dict[str, object]:
                return of_generator

            def load(self) -> LatentDiffusion:
                pytest.fail("a generator was loaded to be identified")

        context = EncoderContext(config.trainer, None, config.options, generator=InUse())
        return GeneratorFeatures(context, noise_level=noise_level, pool_size=pool_size).identity(None, 0)

    base = identity(whole)
    assert {key for key in whole if identity(whole | {key: "another"}) != base} == read
    assert len({base, identity(whole, noise_level=0.2), identity(whole, pool_size=2)}) == 3


@pytest.mark.parametrize(
    ("key", "allowed"),
    [
        ("encoder.noise_level=1.5", "a number at least 0, at most 1"),
        ("encoder.pool_size=0", "a number at least 1, at most 64"),
        ("encoder.checkpoint=x", "encoder=generator does not read encoder.checkpoint"),
    ],
)
def test_mistakes_are_one_line(key: str, allowed: str) -> None:
    with pytest.raises(UserError, match=rf"^{key} is not allowed: .*{allowed}"):
        compose("expand", ["encoder=generator", key])
