"""What the files of a pipeline leave out or say wrongly: taken from the part that knows, or named in one line."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conftest import compose
from pipelines import (
    _autoencoder,
    _unet,
    small_pipeline,
    small_sd3_pipeline,
    small_xl_pipeline,
    tiny_autoencoder,
)
from safetensors.torch import load_file, save_file

from distdiff.errors import UserError
from distdiff.generator.latent_diffusion import LatentDiffusion
from distdiff.generator.pipelines import load_generator

ABSENT = object()
BUILD = {"sd": small_pipeline, "sdxl": small_xl_pipeline, "sd3": small_sd3_pipeline}
UNET, TEXT, VAE = (
    "unet/diffusion_pytorch_model.safetensors",
    "text_encoder/model.safetensors",
    "vae/diffusion_pytorch_model.safetensors",
)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folders = {}
    for family, build in BUILD.items():
        folders[family] = tmp_path_factory.mktemp(family)
        build().save_pretrained(folders[family])
    return folders


@pytest.fixture
def folder(saved: dict[str, Path], tmp_path: Path) -> Callable[[str], Path]:
    """Copies a small pipeline of a family, so that a test may change its files."""
    return lambda family: Path(shutil.copytree(saved[family], tmp_path / family))


def load(model: Path) -> LatentDiffusion:
    given = ["generator=local", f"generator.model='{model}'", "generator.resolution=32", "generator.num_steps=3"]
    return load_generator(compose("expand", given).generator)


def image(generator: LatentDiffusion) -> torch.Tensor:
    """An image of three steps from fixed noise."""
    noise = torch.randn(1, *generator.latent_shape, generator=torch.Generator().manual_seed(2))
    denoiser = generator.denoiser(generator.embed(["a photo of a cat."]), 1.0, [torch.Generator().manual_seed(3)])
    latents = denoiser.pure_noise(noise, 0)
    with torch.no_grad():
        for step in range(3):
            latents = denoiser.advance(latents, denoiser.predict(latents, step), step)
        return generator.decode(latents)


def change(file: Path, **values: object) -> None:
    content = json.loads(file.read_text())
    for key, value in values.items():
        content.pop(key, None)
        if value is not ABSENT:
            content[key] = value
    file.write_text(json.dumps(content))


def refusal(model: Path) -> str:
    with pytest.raises(UserError) as caught:
        load(model)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("family", "file", "values"),
    [
        ("sd", "tokenizer/tokenizer_config.json", {"model_max_length": ABSENT}),
        ("sd", "tokenizer/tokenizer_config.json", {"model_max_length": None}),
        ("sd", "tokenizer/tokenizer_config.json", {"model_max_length": int(1e30)}),
        ("sdxl", "tokenizer_2/tokenizer_config.json", {"model_max_length": ABSENT}),
        ("sd3", "tokenizer/tokenizer_config.json", {"model_max_length": ABSENT}),
        ("sd", "vae/config.json", {"scaling_factor": ABSENT, "sample_size": ABSENT, "force_upcast": ABSENT}),
        ("sd", "scheduler/scheduler_config.json", {"prediction_type": ABSENT, "num_train_timesteps": ABSENT}),
        ("sd", "scheduler/scheduler_config.json", {"steps_offset": ABSENT, "timestep_spacing": ABSENT}),
        ("sd", "unet/config.json", {"sample_size": None, "upcast_attention": None, "dual_cross_attention": ABSENT}),
        ("sdxl", "vae/config.json", {"force_upcast": ABSENT, "shift_factor": ABSENT}),
        ("sdxl", "text_encoder_2/config.json", {"eos_token_id": 2}),  # as many files of CLIP say
        ("sd3", "scheduler/scheduler_config.json", {"num_train_timesteps": ABSENT, "max_shift": ABSENT}),
    ],
)
def test_what_another_part_or_the_class_knows_changes_no_image(folder, saved, family, file, values) -> None:
    model = folder(family)
    change(model / file, **values)
    assert torch.equal(image(load(model)), image(load(saved[family])))


@pytest.mark.parametrize(
    ("family", "file", "key"),
    [
        ("sd", "scheduler/scheduler_config.json", "beta_start"),
        ("sdxl", "scheduler/scheduler_config.json", "beta_end"),
        ("sd", "scheduler/scheduler_config.json", "beta_schedule"),
        ("sd3", "scheduler/scheduler_config.json", "shift"),
        ("sdxl", "vae/config.json", "scaling_factor"),
        ("sd3", "vae/config.json", "scaling_factor"),
        ("sd3", "vae/config.json", "shift_factor"),
        ("sd", "unet/config.json", "attention_head_dim"),
        ("sd3", "transformer/config.json", "num_attention_heads"),
        ("sd", "text_encoder/config.json", "num_attention_heads"),
        ("sdxl", "text_encoder_2/config.json", "hidden_act"),
    ],
)
def test_a_number_that_no_part_knows_is_named(folder, family: str, file: str, key: str) -> None:
    model = folder(family)
    change(model / file, **{key: ABSENT})
    assert refusal(model) == (
        f"generator.model={model} is no complete pipeline: {file}: it lacks {key}, and no other part knows it; add the value "
        "that the model was trained with"
    )


@pytest.mark.parametrize(
    ("family", "file", "values", "words"),
    [
        ("sd", "vae/config.json", {"scaling_factor": "0.18215"}, "scaling_factor='0.18215' is not allowed: a number"),
        ("sd", "vae/config.json", {"scaling_factor": None}, "scaling_factor=null is not allowed: a number"),
        ("sd", "vae/config.json", {"sample_size": None}, "sample_size=null is not allowed: a whole number"),
        ("sd", "vae/config.json", {"scaling_factor": 0}, "scaling_factor=0 is not allowed: a number above 0"),
        ("sd", "vae/config.json", {"block_out_channels": 8}, "block_out_channels=8 is not allowed: a list"),
        (
            "sd",
            "vae/config.json",
            {"block_out_channels": [8, -8, 8]},
            "block_out_channels=[8, -8, 8] is not allowed: a",
        ),
        ("sd", "vae/config.json", {"use_quant_conv": None}, "use_quant_conv=null is not allowed: true or false"),
        ("sdxl", "vae/config.json", {"latents_mean": "0.1"}, "latents_mean='0.1' is not allowed: a list or null"),
        ("sd", "unet/config.json", {"in_channels": "4"}, "in_channels='4' is not allowed: a whole number"),
        ("sd", "unet/config.json", {"layers_per_block": 0}, "layers_per_block=0 is not allowed: a number above 0"),
        (
            "sd",
            "unet/config.json",
            {"attention_head_dim": -1},
            "attention_head_dim=-1 is not allowed: a number above 0",
        ),
        ("sd", "unet/config.json", {"norm_eps": "1e-5"}, "norm_eps='1e-5' is not allowed: a number"),
        ("sd", "unet/config.json", {"norm_num_groups": 16.0}, "norm_num_groups=16.0 is not allowed: a whole number"),
        ("sd", "unet/config.json", {"cross_attention_dim": None}, "cross_attention_dim=null is not allowed: a whole"),
        ("sd", "unet/config.json", {"freq_shift": None}, "freq_shift=null is not allowed: a whole number"),
        ("sd", "unet/config.json", {"center_input_sample": "no"}, "center_input_sample='no' is not allowed: true or"),
        ("sd3", "transformer/config.json", {"patch_size": [2, 2]}, "patch_size=[2, 2] is not allowed: a whole number"),
        ("sd", "scheduler/scheduler_config.json", {"beta_start": [0.1]}, "beta_start=[0.1] is not allowed: a number"),
        ("sd", "scheduler/scheduler_config.json", {"beta_end": float("nan")}, "beta_end=nan is not allowed: a finite"),
        ("sd", "scheduler/scheduler_config.json", {"num_train_timesteps": 0}, "num_train_timesteps=0 is not allowed"),
        ("sd", "scheduler/scheduler_config.json", {"steps_offset": 1.0}, "steps_offset=1.0 is not allowed: a whole"),
        (
            "sd",
            "scheduler/scheduler_config.json",
            {"timestep_spacing": "even"},
            "timestep_spacing='even' is not allowed: leading or trailing or linspace",
        ),
        ("sd3", "scheduler/scheduler_config.json", {"shift": "3"}, "shift='3' is not allowed: a number"),
        ("sd", "text_encoder/config.json", {"hidden_size": "16"}, "hidden_size='16' is not allowed: a whole number"),
        (
            "sd",
            "text_encoder/config.json",
            {"num_attention_heads": 0},
            "num_attention_heads=0 is not allowed: a number",
        ),
        ("sd3", "text_encoder_3/config.json", {"d_kv": None}, "d_kv=null is not allowed: a whole number"),
        (
            "sd",
            "tokenizer/tokenizer_config.json",
            {"model_max_length": "48"},
            "model_max_length='48' is not allowed: a",
        ),
        (
            "sd",
            "tokenizer/tokenizer_config.json",
            {"model_max_length": 0},
            "model_max_length=0 is not allowed: a number",
        ),
        ("sd", "tokenizer/tokenizer_config.json", {"eos_token": None}, "eos_token=null is not allowed: a word of its"),
    ],
)
def test_a_value_of_another_kind_is_named_with_what_is_expected(folder, family, file, values, words) -> None:
    model = folder(family)
    change(model / file, **values)
    assert refusal(model).startswith(f"generator.model={model} is no complete pipeline: {file}: {words}")


@pytest.mark.parametrize(
    ("family", "file", "values", "words"),
    [
        (
            "sd",
            "tokenizer/tokenizer_config.json",
            {"pad_token": None},
            "its tokenizer has no pad_token, with which short",
        ),
        (
            "sd",
            "tokenizer/tokenizer_config.json",
            {"pad_token": "<pad>"},
            "the pad_token of its tokenizer is number 521",
        ),
        ("sdxl", "text_encoder_2/config.json", {"eos_token_id": ABSENT}, "eos_token_id=49407 of its text_encoder_2 is"),
        (
            "sd",
            "text_encoder/config.json",
            {"eos_token_id": None},
            "eos_token_id=None of its text_encoder is not allowed",
        ),
        ("sdxl", "unet/config.json", {"addition_time_embed_dim": None}, "its network has no addition_time_embed_dim"),
        (
            "sdxl",
            "vae/config.json",
            {"latents_mean": [1.0, 2.0]},
            "latents_mean of its vae is [1.0, 2.0], not 4 numbers",
        ),
        (
            "sdxl",
            "vae/config.json",
            {"latents_std": [0.0, 1.0, 1.0, 1.0]},
            "latents_std of its vae is [0.0, 1.0, 1.0, 1.0]",
        ),
        ("sdxl", "vae/config.json", {"latents_std": None}, "its vae has no latents_std, which goes with"),
        (
            "sd",
            "scheduler/scheduler_config.json",
            {"beta_end": 30.0},
            "its noise does not grow from step to step; beta_",
        ),
        (
            "sd",
            "scheduler/scheduler_config.json",
            {"trained_betas": [0.1, 0.2]},
            "it has 2 noise levels for 1000 steps",
        ),
        (
            "sd",
            "model_index.json",
            {"_class_name": "LatentConsistencyModelPipeline"},
            "its network has no time_cond_proj_dim",
        ),
    ],
)
def test_parts_that_say_different_things_are_one_line(folder, family: str, file: str, values: dict, words: str) -> None:
    model = folder(family)
    change(model / file, **values)
    message = refusal(model)
    assert message.startswith(f"generator.model={model} is not allowed: ")
    assert words in message


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"vae": ABSENT}, "it names no vae, so it is no whole text-to-image model"),
        (
            {"text_encoder": [None, None], "tokenizer": None},
            "tokenizer=null is not allowed: the library and the class, as",
        ),
        ({"feature_extractor": []}, "feature_extractor=[] is not allowed: the library and the class, as a list of two"),
        ({"unet": []}, "unet=[] is not allowed: the library and the class, as a list of two words"),
        ({"unet": "UNet2DConditionModel"}, 'unet="UNet2DConditionModel" is not allowed: the library and the class'),
        (
            {"unet": ["diffusers", "ControlNetModel"]},
            "its unet is of the class ControlNetModel, and that of a text-to-",
        ),
        (
            {"unet": ["diffusers", "UNet2DModel"]},
            "its unet is of the class UNet2DModel, and that of a text-to-image model",
        ),
        (
            {"scheduler": ["diffusers", "NoSuchScheduler"]},
            "scheduler=['diffusers', 'NoSuchScheduler'] is not allowed: a",
        ),
        (
            {"scheduler": ["my_module", "MyScheduler"]},
            "scheduler=['my_module', 'MyScheduler'] is not allowed: a Scheduler",
        ),
        ({"tokenizer": ["os", "system"]}, "tokenizer=['os', 'system'] is not allowed: a PreTrainedTokenizerBase of"),
        ({"_class_name": "StableDiffusion3Pipeline"}, "it names no transformer, so it is no whole text-to-image model"),
    ],
)
def test_an_index_that_names_other_parts_is_one_line(folder, values: dict, words: str) -> None:
    model = folder("sd")
    change(model / "model_index.json", **values)
    assert refusal(model).startswith(f"generator.model={model} is no complete pipeline: model_index.json: {words}")


@pytest.mark.parametrize(
    ("files", "words"),
    [
        (
            ["tokenizer/tokenizer.json"],
            "its part tokenizer has no vocabulary (tokenizer.json, or vocab.json and merges.txt)",
        ),
        (["scheduler/scheduler_config.json"], "its part scheduler is missing"),
        (["unet/config.json"], "its part unet has no config.json"),
        (["text_encoder/config.json"], "its part text_encoder has no config.json"),
        (["tokenizer/tokenizer.json", "tokenizer/tokenizer_config.json"], "its part tokenizer is missing"),
    ],
)
def test_a_missing_file_is_named(folder, files: list[str], words: str) -> None:
    model = folder("sd")
    for file in files:
        (model / file).unlink()
    assert refusal(model) == f"generator.model={model} is no complete pipeline: {words}"


@pytest.mark.parametrize("part", [UNET, TEXT, VAE])
def test_tensors_that_are_not_in_the_files_are_counted(folder, part: str) -> None:
    model = folder("sd")
    tensors = load_file(model / part)
    name, number = min(tensors), len(tensors)
    del tensors[name]
    save_file(tensors, model / part, metadata={"format": "pt"})
    message = refusal(model)
    assert (
        f"{part.partition('/')[0]}: 1 of the {number} tensors that its config.json describes are not in its files: "
        in message
    )


def test_weights_of_another_part_are_one_line(folder) -> None:
    model = folder("sd")
    shutil.copy(model / TEXT, model / UNET)
    assert "unet: 206 of the 206 tensors that its config.json describes are not in its files: conv_in.bias" in refusal(
        model
    )


def test_tensors_without_a_place_are_said_and_change_nothing(folder, saved, capsys) -> None:
    model = folder("sd")
    for part in (UNET, TEXT):
        tensors = load_file(model / part) | {"odd.weight": torch.zeros(2)}
        save_file(tensors, model / part, metadata={"format": "pt"})
    got = image(load(model))
    said = " ".join(capsys.readouterr().out.split())
    assert "1 of the 207 tensors in unet have no place in the UNet2DConditionModel that its config.json" in said
    assert "1 of the 21 tensors in text_encoder have no place in the CLIPTextModel that its config.json" in said
    assert torch.equal(got, image(load(saved["sd"])))


def test_names_of_older_versions_have_their_place(folder, saved, capsys) -> None:
    """Stable Diffusion 1's autoencoder has the attention of diffusers 0.2, and its text encoder the positions' numbers."""
    model = folder("sd")
    old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    tensors = load_file(model / VAE)
    for new, before in old.items():
        tensors = {
            name.replace(f"attentions.0.{new}.", f"attentions.0.{before}."): each for name, each in tensors.items()
        }
    assert any("proj_attn" in name for name in tensors)
    save_file(tensors, model / VAE, metadata={"format": "pt"})
    text = {f"text_model.{name.removeprefix('text_model.')}": each for name, each in load_file(model / TEXT).items()}
    text["text_model.embeddings.position_ids"] = torch.arange(48)[None]
    save_file(text, model / TEXT, metadata={"format": "pt"})
    assert torch.equal(image(load(model)), image(load(saved["sd"])))
    assert "no place" not in capsys.readouterr().out


@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8, torch.bool])
def test_quantised_weights_are_refused(folder, dtype: torch.dtype) -> None:
    model = folder("sd")
    save_file({name: each.to(dtype) for name, each in load_file(model / UNET).items()}, model / UNET)
    message = refusal(model)
    assert f"is no complete pipeline: {UNET}: " in message
    assert "it is quantised, and only weights in floating point are read" in message


@pytest.mark.parametrize("part", ["unet", "text_encoder"])
def test_a_quantised_part_is_named(folder, part: str) -> None:
    model = folder("sd")
    change(model / part / "config.json", quantization_config={"quant_method": "bitsandbytes", "load_in_4bit": True})
    assert f"{part}/config.json: it is quantised (bitsandbytes), and only weights in floating point" in refusal(model)


def test_weights_in_eight_bit_floating_point_are_read(folder) -> None:
    model = folder("sd")
    rounded = {name: each.to(torch.float8_e4m3fn) for name, each in load_file(model / UNET).items()}
    save_file(rounded, model / UNET, metadata={"format": "pt"})
    assert torch.equal(load(model).network.conv_in.weight, rounded["conv_in.weight"].float())


def tensor_of_another_shape(model: Path, part: str, name: str) -> None:
    tensors = load_file(model / part)
    full = next(key for key in tensors if key.endswith(name))
    save_file(tensors | {full: torch.zeros(7)}, model / part, metadata={"format": "pt"})


@pytest.mark.parametrize(
    ("part", "name", "words"),
    [
        (UNET, "conv_out.bias", "unet: Cannot load because conv_out.bias expected shape torch.Size([4]), but got"),
        (
            TEXT,
            "final_layer_norm.bias",
            "text_encoder: final_layer_norm.bias is [7] in the file, and [16] by its config",
        ),
    ],
)
def test_a_tensor_of_another_shape_is_named_with_its_part(folder, part: str, name: str, words: str) -> None:
    model = folder("sd")
    tensor_of_another_shape(model, part, name)
    assert words in " ".join(refusal(model).split())


def another_part(pipeline, **parts: object):
    for name, part in parts.items():
        setattr(pipeline, name, part)
    return pipeline


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (
            lambda: another_part(small_pipeline(), vae=tiny_autoencoder(4)),
            "its vae is a AutoencoderTiny, and a text-to-",
        ),
        (
            lambda: another_part(small_pipeline(), vae=_autoencoder(4, in_channels=1, out_channels=1)),
            "its vae takes 1 and gives 1 colours, not 3",
        ),
        (
            lambda: another_part(small_pipeline(), unet=_unet(8, cross_attention_dim=16, out_channels=8)),
            "its network gives 8 channels, not the autoencoder's 4",
        ),
        (
            lambda: another_part(small_pipeline(), unet=_unet(8, cross_attention_dim=16, num_class_embeds=10)),
            "its network takes class labels",
        ),
        (
            lambda: another_part(small_pipeline(), text_encoder=small_xl_pipeline().text_encoder_2),
            "its text_encoder is a CLIPTextModelWithProjection, and a Stable Diffusion model takes a CLIPTextModel",
        ),
        (
            lambda: another_part(small_xl_pipeline(), text_encoder_2=small_xl_pipeline().text_encoder),
            "its text_encoder_2 is a CLIPTextModel, and a Stable Diffusion XL model takes a CLIPTextModelWithProjection",
        ),
        (
            lambda: another_part(small_xl_pipeline(), unet=_unet(cross_attention_dim=32)),
            "its network has addition_embed_type=null, and that of a Stable Diffusion XL model text_time",
        ),
    ],
)
def test_a_part_of_another_task_is_one_line_before_the_work_begins(build: Callable, words: str) -> None:
    with pytest.raises(UserError) as caught:
        LatentDiffusion(build(), 4, 1.0, 32, model="a/b")
    assert str(caught.value).startswith("generator.model=a/b is not allowed: ")
    assert words in str(caught.value)
