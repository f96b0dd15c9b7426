"""Whatever becomes of an encoder's files, one line says which file is broken, and why."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conftest import ROOT, compose_once
from damages import Reader, cases, check_said, whole
from encoder_models import MODELS, PROCESSOR, save_classifier

from distdiff.caching.stages import StageCache
from distdiff.encoders.config import check
from distdiff.encoders.source import encoder_source


def saved(name: str, **options: str) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        torch.manual_seed(0)
        MODELS[name]().save_pretrained(folder, **options)
        (folder / "preprocessor_config.json").write_text(json.dumps(PROCESSOR))

    return make


VISION, CLASSIFIER, PIECES = saved("dinov2"), saved("vit_classifier"), saved("dinov2", max_shard_size="30KB")


def pickled(folder: Path) -> None:
    VISION(folder)
    (folder / "model.safetensors").unlink()
    torch.save(MODELS["dinov2"]().state_dict(), folder / "pytorch_model.bin")


def classifiers(folder: Path) -> None:
    save_classifier(folder)


def reads(key: str, value: str, *overrides: str) -> Callable[[Path], None]:
    """Checks, identifies and loads an encoder, as a command does. `{}` in the value stands for the folder."""

    def read(folder: Path) -> None:
        config = compose_once("expand", [*overrides])
        config.encoder[key] = value.format(folder)
        config.paths.cache_dir = str(folder.parent / "cache")
        check(config.encoder)
        source = encoder_source(config, StageCache(config.paths.cache_dir))
        source.ingredients()
        source.load()

    return read


HF = reads("model", "{}", "encoder=hf", f"encoder.model={ROOT}/distdiff/assets/tiny_digits/text_encoder")
FOLDER = reads("checkpoint", "{}")
CACHED, FILE, LIGHTNING = (
    reads("checkpoint", f"{{}}/{file}") for file in ("cached", "cached/model.safetensors", "last.ckpt")
)
READERS = {
    "config.json": Reader(VISION, "config.json", HF),
    "preprocessor_config.json": Reader(VISION, "preprocessor_config.json", HF, ("missing", "other table")),
    "weights": Reader(VISION, "model.safetensors", HF, ("missing",)),
    "pickled weights": Reader(pickled, "pytorch_model.bin", HF, ("missing",)),
    "index": Reader(PIECES, "model.safetensors.index.json", HF, ("missing",)),
    "piece": Reader(PIECES, "model-00002-of-00005.safetensors", HF),
    "classifier config": Reader(CLASSIFIER, "config.json", FOLDER, ("missing",)),
    "classifier processor": Reader(CLASSIFIER, "preprocessor_config.json", FOLDER, ("missing", "other table")),
    "classifier weights": Reader(CLASSIFIER, "model.safetensors", FOLDER, ("missing",)),
    "cached classifier": Reader(classifiers, "cached/model.safetensors", CACHED, ("folder",)),
    "checkpoint": Reader(classifiers, "cached/model.safetensors", FILE, ("folder",)),
    "Lightning's checkpoint": Reader(classifiers, "last.ckpt", LIGHTNING, ("folder",)),
}


@pytest.mark.parametrize("name", READERS)
def test_a_whole_encoder_is_read(name: str, tmp_path: Path) -> None:
    whole(READERS[name], tmp_path / "given")
    READERS[name].read(tmp_path / "given")


@pytest.mark.parametrize(("name", "damage"), cases(READERS))
def test_a_broken_file_of_an_encoder_is_one_line_with_its_path_and_the_cause(
    name: str, damage: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    check_said(READERS[name], damage, tmp_path, capsys)
