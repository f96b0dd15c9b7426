"""Models of the Hugging Face hub: fetched with a network, used without; one line where they cannot be had."""

import os
import re
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ROOT, compose, small_overrides
from datasets import ClassLabel, Dataset, Features
from datasets import Image as ImageFeature
from diffusers import StableDiffusionPipeline
from hub_server import Hub, forget, send_downloads_to, served
from huggingface_hub import constants
from omegaconf import DictConfig
from original_checkpoint import original_names
from peft import LoraConfig, get_peft_model_state_dict
from PIL import Image
from pipelines import small_pipeline, tiny_autoencoder
from safetensors.torch import save_file
from transformers import Dinov2Config, Dinov2Model

from distdiff.caching.stages import StageCache
from distdiff.cli.job import Tasks, leads, run_job
from distdiff.commands.fetching import selections_of
from distdiff.commands.launch import FETCH
from distdiff.console.quiet import quiet_libraries
from distdiff.encoders.base import Encoder
from distdiff.encoders.source import encoder_source
from distdiff.errors import UserError
from distdiff.generator.pipelines import fetch_generator, fingerprint, load_generator

NOWHERE = "http://127.0.0.1:9"  # the port of `discard`, where nothing listens


@pytest.fixture(scope="module")
def repositories(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Path]]:
    """A pipeline in two revisions with files that nobody needs, a vision model, a decoder, a LoRA, a learned word, images."""
    top = tmp_path_factory.mktemp("repositories")
    pipeline = small_pipeline()
    pipeline.save_pretrained(top / "sd")
    pipeline.save_pretrained(top / "sd", variant="fp16")
    (top / "sd" / "safety_checker").mkdir()
    for file in ("v1-5-pruned.ckpt", "unet/diffusion_pytorch_model.bin", "safety_checker/model.safetensors", "big.png"):
        (top / "sd" / file).write_bytes(b"not needed")
    save_file(original_names(pipeline), top / "original.safetensors")
    with torch.no_grad():
        for weight in pipeline.unet.parameters():
            weight.mul_(0.9)
    pipeline.save_pretrained(top / "sd_v2")
    pipeline.unet.add_adapter(LoraConfig(r=2, target_modules=["to_q"], init_lora_weights=False))
    StableDiffusionPipeline.save_lora_weights(top / "lora", get_peft_model_state_dict(pipeline.unet))
    (top / "word").mkdir()
    save_file({"<blob>": torch.randn(1, 16)}, top / "word" / "learned_embeds.safetensors")
    tiny_autoencoder(4).save_pretrained(top / "decoder")
    vision = Dinov2Config(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, image_size=28, patch_size=14)
    Dinov2Model(vision).save_pretrained(top / "vision")
    (top / "images" / "data").mkdir(parents=True)
    features = Features({"image": ImageFeature(), "label": ClassLabel(names=["cat", "dog"])})
    for seed, split in enumerate(("train", "test")):
        pixels = np.random.default_rng(seed).integers(0, 256, (10, 20, 20, 3), dtype=np.uint8)
        table = {"image": list(map(Image.fromarray, pixels)), "label": [0, 1] * 5}
        Dataset.from_dict(table, features).to_parquet(top / "images" / "data" / f"{split}-00000-of-00001.parquet")
    return {
        "tests/small-sd": {"main": top / "sd", "v2": top / "sd_v2"},
        "tests/gated-sd": {"main": top / "sd"},
        **{f"tests/small-{name}": {"main": top / name} for name in ("lora", "word", "decoder", "vision", "images")},
    }


@pytest.fixture
def hub(repositories: dict[str, dict[str, Path]]) -> Hub:
    return Hub(repositories, frozenset({"tests/gated-sd"}))


@pytest.fixture
def online(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """Sends this process's downloads to an address, while the hub is up."""

    def go(url: str) -> None:
        send_downloads_to(url, monkeypatch)

    with served(hub):
        yield go
    forget()


def expand(place: Path, url: str, *overrides: str, **environment: str) -> tuple[int, list[str], list[str]]:
    """`expand.py` with several jobs, its cache and all that it writes below `place`: its status, and both consoles' lines."""
    small = [item for item in small_overrides(Path("?"), place) if not item.startswith("encoder.guide.")]
    given = [*small, "dataset.per_class=1", "expansion.factor=1", *overrides]
    clean = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    done = subprocess.run(
        [sys.executable, "experiments/expand.py", "-m", *(item for item in given if item != "generator.model=?")],
        cwd=ROOT,
        env=clean | {"HF_HOME": str(place / "cache"), "HF_ENDPOINT": url} | environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    return done.returncode, done.stdout.splitlines(), done.stderr.splitlines()


def test_what_is_fetched_is_all_that_a_node_without_a_network_needs(
    hub: Hub, repositories: dict[str, dict[str, Path]], tmp_path: Path
) -> None:
    """A hub model and a checkpoint, with all that may be added to them; one file comes slower than the hub may answer."""
    checkpoint = repositories["tests/small-sd"]["main"].parent / "original.safetensors"
    everything = [
        f"generator.model=tests/small-sd,{checkpoint}",
        "generator.revision=v2",
        "generator.checkpoint_config=tests/small-sd",
        "generator.guidance_decoder=tests/small-decoder",
        "generator.lora=['tests/small-lora:0.5']",
        "generator.textual_inversion=[tests/small-word]",
        "encoder=hf",
        "encoder.model=tests/small-vision",
        "dataset=hub",
        "dataset.hub_id=tests/small-images",
        "dataset.image_size=32",
    ]
    hub.pauses["tests/small-lora"] = 1.5
    with served(hub):
        status, out, err = expand(
            tmp_path,
            hub.url,
            *everything,
            "guidance=direct",
            "fetch_only=true",
            "trainer.devices=2",
            HF_HUB_ETAG_TIMEOUT="1",
        )
    assert (status, err) == (0, [])
    ready = [line.removeprefix("ready  ").split("  ") for line in out if line.startswith("ready  ")]
    added = ["lora", "textual_inversion", "guidance_decoder"]
    keys = ["dataset", "generator.model", *(f"generator.{key}" for key in added), "encoder.model"]
    keys += ["dataset", "generator.checkpoint_config", *(f"generator.{key}" for key in added), "encoder.model"]
    assert [re.split("[= ]", name)[0] for name, *_ in ready] == keys
    assert ready[0][:2] == ["dataset small-images", "20 images of tests/small-images"]
    for *_, size, folder in ready:
        assert Path(folder).is_relative_to(tmp_path / "cache")
        files = [path for path in Path(folder).rglob("*") if path.is_file()]
        assert float(size.removesuffix(" MB")) == pytest.approx(
            sum(path.stat().st_size for path in files) / 1e6, abs=0.06
        )
    sent = hub.sent()
    assert len(sent) == len(set(sent))  # nothing twice, though two jobs asked
    weights = sorted(name for name in sent if not name.endswith((".json", ".txt")))
    assert weights == [
        "tests/small-decoder@main/diffusion_pytorch_model.safetensors",
        "tests/small-images@main/data/test-00000-of-00001.parquet",
        "tests/small-images@main/data/train-00000-of-00001.parquet",
        "tests/small-lora@main/pytorch_lora_weights.safetensors",
        "tests/small-sd@v2/text_encoder/model.safetensors",
        "tests/small-sd@v2/unet/diffusion_pytorch_model.safetensors",
        "tests/small-sd@v2/vae/diffusion_pytorch_model.safetensors",
        "tests/small-vision@main/model.safetensors",
        "tests/small-word@main/learned_embeds.safetensors",
    ]

    status, out, err = expand(tmp_path, hub.url, *everything, HF_HUB_OFFLINE="1")
    assert (status, err) == (0, [])
    assert len({line for line in out if line.startswith("expanded ") and "(2 images" in line}) == 2


def load_encoder(config: DictConfig) -> Encoder:
    return encoder_source(config, StageCache(config.paths.cache_dir)).load()


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["generator.model=tests/nothing"], "the hub has no such model, or it needs a login (hf auth login); "),
        (["generator.model=tests/gated-sd"], "it is gated: ask for access on its page on the hub, then log in "),
        (["generator.model=tests/small-sd", "generator.revision=v9"], "the hub has it, but not this revision"),
        (["generator.model=tests/small-sd", "generator.variant=x"], "`variant=x`, but no such modeling files are "),
        (["generator.model=tests/small-vision"], "does not appear to have a file named model_index.json."),
        (["encoder.model=tests/nothing"], "the hub has no such model, or it needs a login (hf auth login); "),
        (["encoder.model=tests/gated-sd"], "it is gated: ask for access on its page on the hub, then log in "),
        (["encoder.model=tests/small-vision", "encoder.revision=v9"], "the hub has it, but not this revision"),
        (["encoder.model=tests/small-sd"], "is no vision model that can be loaded: "),
    ],
)
def test_what_the_hub_refuses_is_one_line(
    hub: Hub, online: Callable[[str], None], overrides: list[str], words: str
) -> None:
    online(hub.url)
    config = compose(
        "expand", ["generator=local", "generator.model=a/b", "encoder=hf", "encoder.model=a/b", *overrides]
    )
    of_generator = overrides[0].startswith("generator")
    with pytest.raises(UserError) as caught:
        load_generator(config.generator) if of_generator else load_encoder(config)
    assert str(caught.value).startswith(overrides[0])
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_hub_that_cannot_be_reached_is_given_up_soon_and_quietly_and_its_cache_serves(
    hub: Hub, online: Callable[[str], None], capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The hub's client alone asks for more than a minute, with two lines a try. Only the variant was in the cache."""
    cached = ["generator=local", "generator.model=tests/small-sd", "generator.variant=fp16", "generator.resolution=32"]
    online(hub.url)
    fetch_generator(compose("expand", cached).generator)
    weights = [name for name in hub.sent() if name.endswith(".safetensors")]
    assert len(weights) == 3
    assert all(".fp16." in name for name in weights)

    online(NOWHERE)
    tries, connect = [], socket.create_connection
    monkeypatch.setattr(
        socket, "create_connection", lambda *given, **more: tries.append(given) or connect(*given, **more)
    )
    quiet_libraries()  # as commands do
    capfd.readouterr()
    assert load_generator(compose("expand", cached).generator).resolution == 32
    config = compose("expand", ["generator=local", "generator.model=a/b", "encoder=hf", "encoder.model=a/b"])
    for load in (lambda: load_generator(config.generator), lambda: load_encoder(config)):
        tries.clear()
        with pytest.raises(
            UserError, match="/b: the Hugging Face hub cannot be reached and the model is not in its cache"
        ):
            load()
        assert len(tries) == 2
        assert not constants.HF_HUB_OFFLINE  # the next model may find it up again
    assert capfd.readouterr().err == ""


def test_a_revision_is_part_of_a_hub_models_fingerprint() -> None:
    def identity(*overrides: str) -> dict[str, object]:
        return fingerprint(compose("expand", ["generator=local", "generator.model=a/b", *overrides]).generator)

    assert identity() == identity("generator.revision=main") == identity("generator.variant=fp16")
    assert identity("generator.revision=v2") not in (identity(), identity("generator.revision=v3"))


@pytest.mark.parametrize("command", ["run", "expand", "train", "measure"])
def test_every_command_fetches_and_does_nothing_else(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whatever devices it asks for: a login node has none of them."""
    config = compose(command, ["fetch_only=true", "trainer=gpu", "trainer.devices=4", "trainer.num_nodes=2"])
    assert leads(config)
    run_job(Tasks(run=f"nowhere:{command}", fetch=FETCH), config, tmp_path)
    assert capsys.readouterr().out == "ready  dataset digits  1,797 images\n"
    assert {path.name for path in tmp_path.iterdir()} <= {"log.txt", "config.yaml"}


def test_what_rows_and_candidates_select_with_is_fetched_too() -> None:
    def names(command: str, *overrides: str) -> list[str]:
        return [each.name for each in selections_of(compose(command, list(overrides)))]

    rows = "study.rows={few: [selection=energy], more: [selection=energy, selection.ratio=3]}"
    assert names("run", "study.methods=[none,none+coverage]", rows) == ["all", "coverage", "energy", "energy"]
    assert names("expand", "expansion.tune=true", "tune.strengths=[0.5]", "tune.rows=[none,none+energy]") == [
        "all",
        "energy",
    ]
    assert names("describe") == []
