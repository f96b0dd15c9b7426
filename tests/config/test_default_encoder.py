"""Which encoder a command has if none is typed: the dataset's own file says it, never what happens to be reachable."""

import pytest
from conftest import compose
from hydra.errors import HydraException

from distdiff.config.composing import load_options
from distdiff.expansion.config import EXPANSION
from distdiff.option_files.search_path import OURS, SearchPath

IS_THERE = "distdiff.data.config.check_root_is_there"
PHOTOS = ["caltech101", "cifar100_subset", "dtd", "fgvc_aircraft", "imagenette"]
PHOTOS += ["oxford_flowers", "oxford_pets", "stanford_cars"]
OTHERS = ["digits", "font_digits", "imagefolder", "hub", "parquet", "pathmnist", "bloodmnist", "breastmnist"]


def encoder_of(*overrides: str, command: str = "expand", search: SearchPath = OURS) -> str:
    composed = search.compose(command, list(overrides)).encoder
    return composed.name if "model" not in composed else f"{composed.name} {composed.model}"


def test_every_dataset_is_listed_here() -> None:
    assert {*PHOTOS, *OTHERS, "expanded"} == {*OURS.options("dataset")}


def test_photos_are_guided_by_dinov2_and_other_images_by_a_trained_guide() -> None:
    compose("expand", [])  # registers the command's schema
    assert {encoder_of(f"dataset={name}") for name in PHOTOS} == {"hf facebook/dinov2-small"}
    assert {encoder_of(f"dataset={name}") for name in OTHERS} == {"guide"}


@pytest.mark.parametrize("command", ["run", "preview", "benchmark"])
def test_every_command_with_an_encoder_takes_the_datasets_default(command: str, monkeypatch) -> None:
    monkeypatch.setattr(IS_THERE, lambda dataset: None)
    assert compose(command, ["dataset=dtd"]).encoder.name == "hf"
    assert compose(command, ["dataset=dtd", "encoder=guide"]).encoder.name == "guide"


def test_a_typed_encoder_wins_and_a_typed_model_belongs_to_the_default() -> None:
    compose("expand", [])
    assert encoder_of("dataset=dtd", "encoder=guide") == "guide"
    assert encoder_of("encoder=guide", "dataset=dtd") == "guide"
    assert encoder_of("dataset=dtd", "encoder=clip") == "clip openai/clip-vit-base-patch32"
    assert encoder_of("dataset=dtd", "encoder.model=a/b") == "hf a/b"
    assert encoder_of("encoder=hf") == "hf facebook/dinov2-small"


def test_commands_without_an_encoder_take_every_dataset(monkeypatch) -> None:
    monkeypatch.setattr(IS_THERE, lambda dataset: None)
    for command in ("train", "describe", "measure"):
        config = compose(command, ["dataset=dtd"])
        assert "encoder" not in config
        assert "default_encoder" not in config.dataset


def test_options_of_datasets_are_found_by_name_several_at_once() -> None:
    found = load_options({("dataset", name): "dataset" for name in PHOTOS})
    assert sorted(found.dataset) == sorted(PHOTOS)


def test_a_dataset_of_ones_own_says_its_default_in_the_same_way(tmp_path) -> None:
    compose("expand", [])
    file = tmp_path / "dataset/mine.yaml"
    file.parent.mkdir()
    file.write_text("defaults: [digits, optional /default_encoder@_here_: clip, _self_]\n")
    search = SearchPath((f"file://{tmp_path}",))
    assert encoder_of("dataset=mine", search=search).startswith("clip ")
    file.write_text("defaults: [digits, optional /default_encoder@_here_: clp, _self_]\n")
    with pytest.raises(HydraException, match="encoder/clp"):
        encoder_of("dataset=mine", search=SearchPath((f"file://{tmp_path}/",)))


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ([], True),
        (["generator.resolution=64"], False),
        (["encoder.guide.classifier=resnet50"], False),
        (["encoder.guide.input_size=128"], False),
        (["encoder=hf"], False),
    ],
)
def test_large_images_of_an_unknown_kind_are_given_advice(image_folder, given: list[str], said: bool) -> None:
    config = compose(
        "expand", ["dataset=imagefolder", f"dataset.root='{image_folder}'", "generator=sd15", "guidance=direct", *given]
    )
    lines = list(EXPANSION.warn(config))
    assert len(lines) == said
    assert all("512 pixels at 32" in line and "encoder=efficientnet_lite0" in line for line in lines)
