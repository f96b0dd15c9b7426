"""LoRAs as libraries and people store them: which file is taken, what it changes, and what is said of the rest."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conftest import compose
from diffusers import StableDiffusionPipeline
from hub_server import Hub, forget, send_downloads_to, served
from peft import LoraConfig, get_peft_model, get_peft_model_state_dict
from pipelines import small_pipeline, small_sd3_pipeline, small_xl_pipeline
from safetensors.torch import load_file, save_file

from distdiff.errors import UserError
from distdiff.generator.latent_diffusion import LatentDiffusion
from distdiff.generator.pipelines import adapter_files, fetch_generator, fingerprint, load_generator

LAYER = "mid_block.attentions.0.transformer_blocks.0.attn1.to_q"
USUAL = "pytorch_lora_weights.safetensors"
Tensors = dict[str, torch.Tensor]


def config(model: Path, *overrides: str):
    return compose(
        "expand", ["generator=local", f"generator.model={model}", "generator.resolution=32", *overrides]
    ).generator


def load(model: Path, *loras: str) -> LatentDiffusion:
    return load_generator(config(model, f"generator.lora={[str(lora) for lora in loras]}"))


def change(model: Path, *loras: str) -> torch.Tensor:
    """How much the LoRAs change one layer."""
    with_it, without = (load(model, *given).network.get_submodule(LAYER).weight for given in (loras, ()))
    return with_it - without


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Tensors:
    """A LoRA of the small pipeline's network, as diffusers saves it."""
    folder = tmp_path_factory.mktemp("lora")
    pipeline = small_pipeline()
    torch.manual_seed(7)
    pipeline.unet.add_adapter(LoraConfig(r=2, lora_alpha=2, target_modules=["to_q", "to_k"], init_lora_weights=False))
    StableDiffusionPipeline.save_lora_weights(folder, get_peft_model_state_dict(pipeline.unet))
    return load_file(folder / USUAL)


@pytest.fixture
def expected(weights: Tensors) -> torch.Tensor:
    return weights[f"unet.{LAYER}.lora_B.weight"] @ weights[f"unet.{LAYER}.lora_A.weight"]


def bare(weights: Tensors) -> Tensors:
    return {name.removeprefix("unet."): tensor for name, tensor in weights.items()}


def webui(weights: Tensors) -> Tensors:
    """The names that kohya's trainer gives, which most files on the web have."""
    ends = {"lora_A.weight": "lora_down.weight", "lora_B.weight": "lora_up.weight"}
    found = {}
    for name, tensor in weights.items():
        layer, end = name[: -len(".lora_A.weight")], name[-len("lora_A.weight") :]
        found[f"lora_{layer.replace('.', '_')}.{ends[end]}"] = tensor
    return found


def old(weights: Tensors) -> Tensors:
    """The names that diffusers gave in 2023 (`save_attn_procs`)."""
    ends = {"lora_A.weight": "down.weight", "lora_B.weight": "up.weight"}
    found = {}
    for name, tensor in bare(weights).items():
        layer, end = name[: -len(".lora_A.weight")], name[-len("lora_A.weight") :]
        place, _, matrix = layer.rpartition(".")
        found[f"{place}.processor.{matrix}_lora.{ends[end]}"] = tensor
    return found


@pytest.mark.parametrize("names", [dict, bare, webui, old], ids=["diffusers", "bare", "webui", "old"])
def test_all_usual_names_of_weights_are_the_same_lora(
    names: Callable[[Tensors], Tensors],
    weights: Tensors,
    expected: torch.Tensor,
    pipeline_folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    save_file(names(weights), tmp_path / "style.safetensors")
    torch.testing.assert_close(
        change(pipeline_folder, f"{tmp_path}/style.safetensors:0.5"), 0.5 * expected, atol=1e-6, rtol=0
    )
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("rslora", [False, True])
def test_a_folder_that_peft_saved_counts_as_strongly_as_it_says(
    rslora: bool, pipeline_folder: Path, tmp_path: Path
) -> None:
    """Oracle: PEFT's own merged layer, with α = 6 at rank 2 and another α for one layer."""
    torch.manual_seed(3)
    adapted = LoraConfig(
        r=2,
        lora_alpha=6,
        target_modules=["to_q", "to_k"],
        init_lora_weights=False,
        use_rslora=rslora,
        alpha_pattern={LAYER: 5},
    )
    model = get_peft_model(small_pipeline().unet, adapted)
    model.save_pretrained(tmp_path / "peft")
    assert {path.name for path in (tmp_path / "peft").iterdir()} >= {"adapter_model.safetensors", "adapter_config.json"}
    merged, plain = model.merge_and_unload(), small_pipeline().unet
    for layer in (LAYER, "mid_block.attentions.0.transformer_blocks.0.attn2.to_k"):
        loaded = load(pipeline_folder, f"{tmp_path}/peft").network.get_submodule(layer).weight
        torch.testing.assert_close(loaded, merged.get_submodule(layer).weight, atol=1e-5, rtol=0)
        assert (loaded - plain.get_submodule(layer).weight).abs().max() > 1e-3
    (tmp_path / "peft" / "adapter_config.json").unlink()
    with pytest.raises(UserError, match=r"adapter_model.safetensors needs adapter_config.json beside it"):
        load(pipeline_folder, f"{tmp_path}/peft")


def test_a_text_encoders_lora_that_peft_saved_finds_its_part(pipeline_folder: Path, tmp_path: Path) -> None:
    torch.manual_seed(3)
    lora = LoraConfig(r=2, lora_alpha=2, target_modules=["q_proj"], init_lora_weights=False)
    get_peft_model(small_pipeline().text_encoder, lora).save_pretrained(tmp_path)
    with_it, without = load(pipeline_folder, f"{tmp_path}"), load(pipeline_folder)
    difference = with_it.embed(["a cat"]).positive.tokens - without.embed(["a cat"]).positive.tokens
    assert difference.abs().max() > 1e-3


@pytest.mark.parametrize(
    ("name", "words"),
    [
        (
            "other_model",
            "none of the 16 layers that x.safetensors changes is in this model (such as transformer.down_blocks",
        ),
        (
            "wide",
            "another width: unet.down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_k takes 32 numbers in the file, and 16",
        ),
        ("wide_text", "layers.0.self_attn.q_proj takes 32 numbers in the file, and 16 in this model"),
        ("torn", "1 of its 16 layers have only one of their two matrices, such as unet.down_blocks."),
        ("no_lora", "x.safetensors has no LoRA weights; it has a"),
        ("nothing", "x.safetensors has no LoRA weights; it has nothing at all"),
        (
            "nan",
            "x.safetensors: unet.down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_k.lora_A.weight holds values",
        ),
        ("page", "x.safetensors: it is a web page, not the file itself"),
        ("cut", "x.safetensors: it is cut short: "),
        ("pointer", "it is a git-lfs pointer"),
        ("empty", "x.safetensors: it is empty"),
        ("junk", "x.safetensors: it is no safetensors file"),
    ],
)
def test_a_file_that_does_not_fit_is_one_line_with_its_name_and_the_cause(
    name: str,
    words: str,
    weights: Tensors,
    pipeline_folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    file = tmp_path / "x.safetensors"
    double = {"A": lambda tensor: torch.cat([tensor, tensor], 1), "B": lambda tensor: torch.cat([tensor, tensor], 0)}
    tensors = {
        "other_model": lambda: {n.replace("unet.", "transformer."): t for n, t in weights.items()},
        "wide": lambda: {n: double[n[-8]](t) for n, t in weights.items()},
        "wide_text": lambda: {
            f"text_encoder.text_model.encoder.layers.0.self_attn.q_proj.lora_{side}.weight": double[side](
                torch.ones(shape)
            )
            for side, shape in (("A", (2, 16)), ("B", (16, 2)))
        },
        "torn": lambda: dict(list(weights.items())[1:]),
        "no_lora": lambda: {"a": torch.zeros(1)},
        "nothing": dict,
        "nan": lambda: {n: t * torch.nan for n, t in weights.items()},
    }.get(name, lambda: weights)()
    save_file(tensors, file)
    if name == "cut":
        file.write_bytes(file.read_bytes()[:-100])
    elif name in ("pointer", "empty", "junk", "page"):
        texts = {
            "page": "<!doctype html>",
            "pointer": "version https://git-lfs.github.com/spec/v1\noid sha256:0\n",
            "empty": "",
            "junk": "x" * 99,
        }
        file.write_text(texts[name])
    with pytest.raises(UserError) as caught:
        load(pipeline_folder, str(file))
    assert words in str(caught.value)
    assert "x.safetensors" in str(caught.value)
    assert not str(caught.value).endswith(":")
    assert "\n" not in str(caught.value)
    out, err = capsys.readouterr()
    assert out == ""
    assert "mismatch" not in err  # diffusers would list every tensor


@pytest.mark.parametrize("names", [dict, webui])
def test_weights_without_a_place_in_the_model_are_counted(
    names: Callable[[Tensors], Tensors],
    weights: Tensors,
    pipeline_folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    renamed = {name.replace("mid_block", "mid_blok"): tensor for name, tensor in names(weights).items()}
    save_file(renamed, tmp_path / "x.safetensors")
    load(pipeline_folder, f"{tmp_path}/x.safetensors")
    assert capsys.readouterr().out.splitlines() == [
        f"generator.lora={tmp_path}/x.safetensors: only 12 of the 16 layers that x.safetensors changes are in this model; its "
        "other weights are left out"
    ]


@pytest.mark.parametrize(("build", "network"), [(small_xl_pipeline, "unet"), (small_sd3_pipeline, "transformer")])
def test_other_families_take_bare_weights_too(
    build, network: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pipeline = build()
    pipeline.save_pretrained(tmp_path / "model")
    part = getattr(pipeline, network)
    torch.manual_seed(1)
    part.add_adapter(LoraConfig(r=2, lora_alpha=2, target_modules=["to_q"], init_lora_weights=False))
    save_file(get_peft_model_state_dict(part), tmp_path / "bare.safetensors")
    with_it, without = load(tmp_path / "model", f"{tmp_path}/bare.safetensors"), load(tmp_path / "model")
    changed = [
        name
        for (name, ours), theirs in zip(with_it.network.named_parameters(), without.network.parameters(), strict=True)
        if not torch.equal(ours, theirs)
    ]
    assert changed
    assert all("to_q" in name for name in changed)
    assert capsys.readouterr().out == ""


def test_a_folder_with_several_files_needs_a_choice(
    weights: Tensors, expected: torch.Tensor, pipeline_folder: Path, tmp_path: Path
) -> None:
    save_file({name: 3 * tensor for name, tensor in weights.items()}, tmp_path / "a.safetensors")
    save_file(weights, tmp_path / "b.safetensors")
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(UserError) as caught:
        config(pipeline_folder, f"generator.lora=[{tmp_path}]")
    assert "it has 2 weight files (a.safetensors, b.safetensors); name one, such as generator.lora=['" in str(
        caught.value
    )
    for number in range(2):
        torch.testing.assert_close(
            change(pipeline_folder, f"{tmp_path}/b.safetensors"), expected, atol=1e-6, rtol=0, msg=str(number)
        )
    save_file(weights, tmp_path / USUAL)  # the name that diffusers gives wins, as it does in diffusers
    chosen = config(pipeline_folder, f"generator.lora=['{tmp_path}:0.5']")
    assert [(entry["file"], entry["scale"]) for entry in adapter_files(chosen)] == [(USUAL, 0.5)]
    (tmp_path / "none").mkdir()
    with pytest.raises(UserError, match="it has no \\.safetensors file"):
        config(pipeline_folder, f"generator.lora=[{tmp_path}/none]")
    with pytest.raises(UserError, match="is not allowed: a \\.safetensors file, or a folder with one"):
        config(pipeline_folder, f"generator.lora=[{tmp_path}/notes.txt]")


def test_an_ending_in_capitals_is_named(pipeline_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "X.SAFETENSORS").write_bytes(b"")
    for name in (tmp_path / "X.SAFETENSORS", tmp_path):
        with pytest.raises(UserError, match=r"only files that end in \.safetensors; rename X\.SAFETENSORS"):
            config(pipeline_folder, f"generator.lora=[{name}]")


@pytest.fixture
def hub(weights: Tensors, tmp_path: Path) -> Hub:
    folder = tmp_path / "repository"
    (folder / "styles").mkdir(parents=True)
    save_file({name: 3 * tensor for name, tensor in weights.items()}, folder / "a.safetensors")
    save_file(weights, folder / "styles" / "b.safetensors")
    save_file({name: 2 * tensor for name, tensor in weights.items()}, folder / "c.safetensors")
    torch.manual_seed(3)
    adapted = LoraConfig(r=2, lora_alpha=4, target_modules=["to_q"], init_lora_weights=False)
    get_peft_model(small_pipeline().unet, adapted).save_pretrained(tmp_path / "peft")
    return Hub({"tests/loras": {"main": folder}, "tests/peft": {"main": tmp_path / "peft"}})


def test_one_file_of_a_repository_is_fetched_alone_and_loads_without_a_network(
    hub: Hub, expected: torch.Tensor, pipeline_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = config(
        pipeline_folder, "generator.lora=['tests/loras/styles/b.safetensors:0.5',tests/loras/c.safetensors,tests/peft]"
    )
    with served(hub):
        send_downloads_to(hub.url, monkeypatch)
        assert len(fetch_generator(wanted)) == 3
        assert sorted(hub.sent()) == [
            "tests/loras@main/c.safetensors",
            "tests/loras@main/styles/b.safetensors",
            "tests/peft@main/adapter_config.json",
            "tests/peft@main/adapter_model.safetensors",
        ]
        online = fingerprint(wanted)["lora"]
        assert online[0] == (f"tests/loras@{hub.commit('tests/loras', 'main')}/styles/b.safetensors", 0.5)
        with pytest.raises(UserError) as caught:
            load(pipeline_folder, "tests/loras")
        assert "it has 2 weight files (a.safetensors, c.safetensors); name one" in str(caught.value)
        with pytest.raises(UserError, match=r"tests/loras on the hub has no such file; it has a\.safetensors, "):
            load(pipeline_folder, "tests/loras/styles/z.safetensors")
    forget()
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert fingerprint(wanted)["lora"] == online
    assert [entry["file"] for entry in adapter_files(wanted)] == [
        "styles/b.safetensors",
        "c.safetensors",
        "adapter_model.safetensors",
    ]
    torch.testing.assert_close(
        change(pipeline_folder, "tests/loras/styles/b.safetensors:0.5"), 0.5 * expected, atol=1e-6, rtol=0
    )
    assert change(pipeline_folder, "tests/peft").abs().max() > 1e-3
    with pytest.raises(
        UserError, match=r"a\.safetensors: tests/loras on the hub has no such file; it has c\.safetensors"
    ):
        load(pipeline_folder, "tests/loras/a.safetensors")


def test_a_mistyped_path_is_no_place_on_the_hub(pipeline_folder: Path) -> None:
    with pytest.raises(
        UserError, match=r"b\.safetensors.* there is no such file here, and as a file on the hub: the Hugging"
    ):
        load(pipeline_folder, "my/styles/b.safetensors:0.8")
    for name in ("styles/ink.safetensors", "./styles/ink/x.safetensors", "~/styles/ink.safetensors", "ink.safetensors"):
        with pytest.raises(UserError, match="no such file or folder"):
            config(pipeline_folder, f"generator.lora=[{name}]")


def test_the_manifest_says_which_file_was_taken(weights: Tensors, small_run: list[str], tmp_path: Path) -> None:
    from distdiff.commands.expand import expand
    from distdiff.store.directory import ExpandedDirectory

    (tmp_path / "style").mkdir()
    save_file(weights, tmp_path / "style" / "ink.safetensors")
    overrides = [*small_run, f"generator.lora=['{tmp_path}/style:0.8']", "guidance=none", "dataset.per_class=1"]
    made = ExpandedDirectory(expand(compose("expand", [*overrides, "expansion.factor=1"]), tmp_path)).manifest()
    (adapter,) = made["adapters"]
    assert adapter == {
        "key": "generator.lora",
        "name": f"{tmp_path}/style",
        "file": "ink.safetensors",
        "identity": made["ingredients"]["generator"]["lora"][0][0],
        "scale": 0.8,
    }
