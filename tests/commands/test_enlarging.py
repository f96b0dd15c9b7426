"""A command that enlarges images more than twice says so once, with the key that sets the size."""

from pathlib import Path

import numpy as np
import pytest
from conftest import compose
from PIL import Image

from distdiff.commands.enlarging import say_enlarged_images
from distdiff.commands.expand import expand
from distdiff.commands.train import train
from distdiff.data.datasets import load_dataset


def folder_of(place: Path, size: tuple[int, int]) -> Path:
    rng = np.random.default_rng(0)
    for name in ("cat", "dog"):
        (place / name).mkdir(parents=True)
        for number in range(5):
            pixels = rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
            Image.fromarray(pixels).save(place / name / f"{number}.png")
    return place


JUDGE = "options.classifier.small_resnet.input_size"


@pytest.mark.parametrize(
    ("size", "given", "said"),
    [
        ((32, 32), ["run", "generator=sd15"], ["enlarged 16 times, to generator.resolution=512; generator.resolution=32"]),
        ((32, 32), ["run", "classifier=resnet18"], ["enlarged 7 times, to classifier.input_size=224; classifier.input_size=32"]),
        ((32, 32), ["train", "classifier=resnet18"], ["usually 32 pixels a side, are enlarged 7 times"]),
        ((100, 30), ["measure", f"{JUDGE}=64"], ["usually 30 pixels a side", f"{JUDGE}=32"]),
        ((32, 32), ["expand", "encoder.guide.classifier=resnet18"], ["enlarged 7 times, to encoder.guide.input_size=224"]),
        ((32, 32), ["preview", "generator.resolution=72"], ["enlarged 2.25 times, to generator.resolution=72"]),
        ((32, 32), ["run", "classifier.input_size=64", "generator.resolution=64"], []),
        ((100, 30), ["train", "classifier.input_size=64", "dataset.fit=pad"], []),
        ((300, 300), ["train", "classifier=resnet18"], []),
    ],
)  # fmt: skip
def test_a_much_larger_size_is_said_with_its_key(
    size: tuple[int, int], given: list[str], said: list[str], tmp_path: Path, capsys
) -> None:
    command, *more = given
    more += [f"measure.expanded={tmp_path}"] if command == "measure" else []
    config = compose(command, ["dataset=imagefolder", f"dataset.root='{folder_of(tmp_path / 'photos', size)}'", *more])
    images = load_dataset(config.dataset).train
    capsys.readouterr()
    say_enlarged_images(config, images)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == bool(said)
    assert all(words in lines[0] for words in said)


def test_training_and_expanding_say_it_once(small_run: list[str], tmp_path: Path, capsys) -> None:
    data = ["dataset=imagefolder", f"dataset.root='{folder_of(tmp_path / 'photos', (8, 8))}'", "dataset.per_class=2"]
    train(compose("train", [*data, "train.steps=1", "logger=none", f"paths.output_dir={tmp_path}"]), tmp_path)
    assert capsys.readouterr().out.count("enlarged 4 times, to classifier.input_size=32") == 1
    expand(compose("expand", [*small_run, *data, "guidance=none", "expansion.factor=1"]), tmp_path)
    assert capsys.readouterr().out.count("enlarged 4 times, to generator.resolution=32") == 1
