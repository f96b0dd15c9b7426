"""What the files of a pipeline leave out or say wrongly: taken from the part that knows, or named in one line."""

import pytest
import saved_pipelines
import torch
from saved_pipelines import ABSENT, change, image, load, refusal

saved, folder = saved_pipelines.saved, saved_pipelines.folder  # fixtures


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


def test_a_network_of_stable_diffusion_2_for_768_pixels_is_not_taken_for_one_of_epsilon(folder) -> None:
    model = folder("sd")
    change(model / "unet/config.json", cross_attention_dim=1024, sample_size=96)
    change(model / "scheduler/scheduler_config.json", prediction_type=ABSENT)
    assert "scheduler/scheduler_config.json: it lacks prediction_type: epsilon or, as in Stable Diffusion 2" in refusal(
        model
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
        (["tokenizer/tokenizer.json"], "tokenizer/tokenizer.json: there is no such file"),
        (["scheduler/scheduler_config.json"], "its part scheduler is missing"),
        (["unet/config.json"], "unet/config.json: there is no such file"),
        (["text_encoder/config.json"], "text_encoder/config.json: there is no such file"),
        (["tokenizer/tokenizer.json", "tokenizer/tokenizer_config.json"], "its part tokenizer is missing"),
    ],
)
def test_a_missing_file_is_named(folder, files: list[str], words: str) -> None:
    model = folder("sd")
    for file in files:
        (model / file).unlink()
    assert refusal(model) == f"generator.model={model} is no complete pipeline: {words}"
