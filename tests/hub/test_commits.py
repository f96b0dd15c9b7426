"""What is named by a branch of the hub is identified by the commit that the branch means, and that commit is loaded."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import datasets as datasets_library
import numpy as np
import pytest
import torch
from conftest import compose
from datasets import ClassLabel, Dataset, Features
from datasets import Image as ImageFeature
from diffusers import StableDiffusionPipeline
from hub_server import Hub, forget, send_downloads_to, served
from huggingface_hub import constants
from peft import LoraConfig, get_peft_model_state_dict
from PIL import Image
from pipelines import small_pipeline, tiny_autoencoder
from safetensors.torch import save_file
from transformers import (
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
    Dinov2Config,
    Dinov2Model,
)

from distdiff.caching.stages import StageCache
from distdiff.data.datasets import load_dataset
from distdiff.encoders.source import encoder_source
from distdiff.errors import UserError
from distdiff.generator.location import FIRST_LAYER
from distdiff.generator.pipelines import fetch_generator, fingerprint, load_generator


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One repository of each kind, each to be copied before it is changed."""
    top = tmp_path_factory.mktemp("repositories")
    pipeline = small_pipeline()
    pipeline.save_pretrained(top / "sd")
    pipeline.unet.add_adapter(LoraConfig(r=2, target_modules=["to_q"], init_lora_weights=False))
    StableDiffusionPipeline.save_lora_weights(top / "lora", get_peft_model_state_dict(pipeline.unet))
    (top / "word").mkdir()
    save_file({"<blob>": torch.randn(1, 16)}, top / "word" / "learned_embeds.safetensors")
    tiny_autoencoder(4).save_pretrained(top / "decoder")
    small = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 28, "patch_size": 14}
    Dinov2Model(Dinov2Config(**small)).save_pretrained(top / "vision")
    CLIPVisionModelWithProjection(CLIPVisionConfig(**small, intermediate_size=16)).save_pretrained(top / "clip")
    return {folder.name: folder for folder in top.iterdir()}


@pytest.fixture
def hub(folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    """A hub that can be reached, with each of `folders` as `tests/<name>`, and an empty cache."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache" / "hub"))
    monkeypatch.setattr(datasets_library.config, "HF_DATASETS_CACHE", tmp_path / "cache" / "datasets")
    hub = Hub({f"tests/{name}": {"main": folder} for name, folder in folders.items()})
    with served(hub):
        send_downloads_to(hub.url, monkeypatch)
        yield hub
    forget()


def changed(folder: Path, to: Path) -> Path:
    """A copy of a repository with a file more."""
    shutil.copytree(folder, to)
    (to / "note.txt").write_text("changed")
    return to


SMALL = {"generator": "local", "generator.resolution": 32, "generator.model": "tests/sd"}
ADDED = {
    "generator.model": {},
    "generator.lora": {"generator.lora": "[tests/lora]"},
    "generator.textual_inversion": {"generator.textual_inversion": "[tests/word]"},
    "generator.guidance_decoder": {"generator.guidance_decoder": "tests/decoder"},
    "encoder.hf": {"encoder": "hf", "encoder.model": "tests/vision"},
    "encoder.clip": {"encoder": "clip", "encoder.model": "tests/clip"},
}
REPOSITORIES = dict(zip(ADDED, ("sd", "lora", "word", "decoder", "vision", "clip"), strict=True))


def identified_and_loaded(key: str, tmp_path: Path) -> tuple[object, Callable[[], object]]:
    """The identity of what `key` names, and what loads it."""
    config = compose("expand", [f"{name}={value}" for name, value in (SMALL | ADDED[key]).items()])
    if key.startswith("encoder"):
        source = encoder_source(config, StageCache(tmp_path))
        return source.ingredients(), source.load
    return fingerprint(config.generator), lambda: load_generator(config.generator)


@pytest.mark.parametrize("key", ADDED)
def test_what_was_identified_is_loaded_though_its_branch_moves_and_the_next_run_notices(
    key: str, hub: Hub, folders: dict[str, Path], tmp_path: Path
) -> None:
    name = f"tests/{REPOSITORIES[key]}"
    first = hub.commit(name, "main")
    before, load = identified_and_loaded(key, tmp_path)
    assert f"{name}@{first}" in str(before)
    hub.push(name, changed(folders[REPOSITORIES[key]], tmp_path / "pushed"))
    load()
    again, _ = identified_and_loaded(key, tmp_path)  # another job of this process
    assert again == before
    assert {line.split("@")[1].split("/")[0] for line in hub.sent() if line.startswith(name)} == {first}

    forget()
    after, load = identified_and_loaded(key, tmp_path)
    second = hub.commit(name, "main")
    assert f"{name}@{second}" in str(after)
    hub.asked.clear()
    load()
    assert all(first not in line for line in hub.asked)


@pytest.mark.parametrize("key", ADDED)
def test_without_a_network_the_cache_tells_the_commit(
    key: str, hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    online, load = identified_and_loaded(key, tmp_path)
    load()
    forget()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    hub.asked.clear()
    offline, load = identified_and_loaded(key, tmp_path)
    assert offline == online
    load()
    assert hub.asked == []


def test_a_commit_and_the_branch_that_means_it_are_one_model(hub: Hub, tmp_path: Path) -> None:
    commit = hub.commit("tests/sd", "main")
    given = [f"{name}={value}" for name, value in SMALL.items()]
    by_branch, by_commit = (
        fingerprint(compose("expand", [*given, *more]).generator) for more in ([], [f"generator.revision={commit}"])
    )
    assert by_branch == by_commit


def test_fetched_is_the_commit_that_was_identified(hub: Hub, folders: dict[str, Path], tmp_path: Path) -> None:
    config = compose("expand", [f"{name}={value}" for name, value in SMALL.items()])
    fingerprint(config.generator)
    first = hub.commit("tests/sd", "main")
    hub.push("tests/sd", changed(folders["sd"], tmp_path / "pushed"))
    (folder,) = fetch_generator(config.generator).values()
    assert folder.name == first


def test_what_a_checkpoint_takes_from_the_hub_is_part_of_its_identity(
    hub: Hub, folders: dict[str, Path], tmp_path: Path
) -> None:
    """Its tokenizer and the shapes of its parts come from a pipeline that `checkpoint_config` names."""
    save_file({FIRST_LAYER: torch.zeros(320, 4, 3, 3)}, tmp_path / "checkpoint.safetensors")
    given = {"generator": "local", "generator.model": tmp_path / "checkpoint.safetensors"}
    config = compose(
        "expand", [*(f"{key}={value}" for key, value in given.items()), "generator.checkpoint_config=tests/sd"]
    ).generator
    before = fingerprint(config)
    assert before["checkpoint_config"] == f"tests/sd@{hub.commit('tests/sd', 'main')}"
    hub.push("tests/sd", changed(folders["sd"], tmp_path / "pushed"))
    forget()
    assert fingerprint(config) != before


def test_an_encoder_that_cannot_be_identified_is_refused_before_anything_gets_its_name(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The hub is away while results are named. The line names the encoders that work without it."""
    with monkeypatch.context() as patched:
        patched.setattr(constants, "HF_HUB_OFFLINE", True)
        with pytest.raises(
            UserError,
            match=r"^encoder\.model=tests/vision: the Hugging Face hub cannot be reached .*; "
            r"encoder=efficientnet_lite0 \(.*\) and encoder=guide work without the hub$",
        ):
            identified_and_loaded("encoder.hf", tmp_path)
    known, load = identified_and_loaded("encoder.hf", tmp_path)
    assert known["model"] == f"tests/vision@{hub.commit('tests/vision', 'main')}"
    load()


def table(folder: Path, level: int) -> Path:
    """A dataset's repository whose images have this level of red."""
    features = Features({"image": ImageFeature(), "label": ClassLabel(names=["cat", "dog"])})
    pixels = np.full((20, 20, 3), level, dtype=np.uint8)
    (folder / "data").mkdir(parents=True)
    for split in ("train", "test"):
        rows = {"image": [Image.fromarray(pixels)] * 4, "label": [0, 1] * 2}
        Dataset.from_dict(rows, features).to_parquet(folder / "data" / f"{split}-00000-of-00001.parquet")
    return folder


def level(*overrides: str) -> int:
    """The red of the first training image."""
    config = compose("train", ["dataset=hub", "dataset.hub_id=tests/ImagesOfPets", "dataset.image_size=20", *overrides])
    return load_dataset(config.dataset).train.image(0).getpixel((0, 0))[0]


def test_a_dataset_is_that_of_its_revision_without_a_network_too(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The library alone takes what it has prepared last, whatever its revision."""
    tables = {revision: table(tmp_path / revision, level) for revision, level in (("main", 10), ("v2", 20), ("v3", 30))}
    hub.repositories = {"tests/ImagesOfPets": tables}
    assert [level(), level("dataset.revision=v2")] == [10, 20]
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    forget()
    assert [level(), level("dataset.revision=v2"), level(), level("dataset.revision=main")] == [10, 20, 10, 10]
    commit = hub.commit("tests/ImagesOfPets", "v2")
    assert level(f"dataset.revision={commit}") == 20
    with pytest.raises(UserError, match=r"the cache has another commit than that of dataset\.revision=v3"):
        level("dataset.revision=v3")


def test_a_dataset_that_moved_is_read_anew_by_the_next_run(hub: Hub, tmp_path: Path) -> None:
    hub.repositories = {"tests/ImagesOfPets": {"main": table(tmp_path / "one", 10)}}
    assert level() == 10
    hub.push("tests/ImagesOfPets", table(tmp_path / "two", 20))
    forget()
    assert level() == 20
