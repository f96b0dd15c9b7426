"""Every preset of a published experiment composes, and runs on a small copy of its dataset with a random pipeline."""

import json
from pathlib import Path

import pytest
from conftest import compose
from layouts import aircraft, cars, cifar100, imagenette, medmnist, picture, textures

from distdiff.classification.recipe import Recipe
from distdiff.commands.run import run
from distdiff.option_files.search_path import OURS

SMALL = [
    *("generator=local", "generator.resolution=32", "dataset.check_counts=false", "dataset.image_size=32"),
    *(
        "options.classifier.resnet50.input_size=32",
        "encoder.guide.steps=1",
        "classifier.input_size=32",
        "train.resize=36",
    ),
    *("train.epochs=1", "train.batch_size=4", "expansion.factor=1", "measure.judge_steps=1", "study.seeds=1"),
    "logger=none",
]
ANY = "published"  # whose dataset is whatever is typed


def caltech101(top: Path) -> None:
    for part in ("train", "test"):
        for name in ("accordion", "ceiling_fan"):
            for number in range(3):
                picture(top / part / name / f"{part}_{number}.jpg", number)


def cifar100_subset(top: Path) -> None:
    cifar100(top / "cifar-100-binary")
    for name in ("apple", "sea_horse"):
        for number in range(3):
            picture(top / "CIFAR_10000" / name / f"{number}.png", number)


COPIES = {
    ANY: ("", lambda top: None),
    "caltech101_5x": ("caltech101", caltech101),
    "cifar100_subset_5x": ("cifar100_subset", cifar100_subset),
    "stanford_cars_5x": ("stanford_cars", cars),
    "imagenette_5x": ("imagenette2-320", imagenette),
    "dtd_5x": ("dtd", textures),
    "pathmnist_5x": ("pathmnist", lambda top: medmnist(top / "pathmnist.npz")),
    "unidiffda_aircraft_5shot": ("fgvc-aircraft-2013b", aircraft),
}


def test_every_preset_has_a_copy_of_its_dataset() -> None:
    assert sorted(COPIES) == sorted(OURS.options("experiment"))


@pytest.mark.parametrize("preset", [name for name in COPIES if name != ANY])
def test_a_preset_runs_on_a_small_copy_of_its_dataset(preset: str, pipeline_folder: Path, tmp_path: Path) -> None:
    folder, make = COPIES[preset]
    make(tmp_path / "data" / folder)
    (tmp_path / "run").mkdir()
    given = [
        f"generator.model={pipeline_folder}",
        f"paths.data_dir={tmp_path}/data",
        f"paths.output_dir={tmp_path}/out",
    ]
    rows = ["study.methods=[transform_official]"] if preset.endswith("5x") else []
    run(compose("run", [f"experiment={preset}", *SMALL, *given, *rows]), tmp_path / "run")
    results = json.loads((tmp_path / "run/results.json").read_text())
    assert results["headline"][0].startswith("Accuracies are those of the best check on these very images")
    assert all(0 <= row["accuracy_mean"] <= 1 for row in results["rows"])


def test_the_settings_of_the_paper_are_those_of_its_code(tmp_path: Path) -> None:
    config = compose("run", [f"experiment={ANY}", "dataset=imagefolder", f"dataset.root='{tmp_path}'"])
    assert (config.generator.model, config.generator.num_steps, config.generator.cfg_scale) == (
        "CompVis/stable-diffusion-v1-4",
        50,
        7.5,
    )
    guidance = {name: config.guidance[name] for name in ("name", "rho", "epsilon", "start_step", "period", "init")}
    assert guidance == {
        "name": "transform_official",
        "rho": 10,
        "epsilon": 0.2,
        "start_step": 20,
        "period": 2,
        "init": "random",
    }
    recipe = Recipe.of(config)
    assert (recipe.epochs, recipe.batch_size, recipe.resize, recipe.optimizer["learning_rate"]) == (100, 64, 256, 0.1)
    medmnist(tmp_path / "data/pathmnist/pathmnist.npz")
    path = compose("run", ["experiment=pathmnist_5x", f"paths.data_dir={tmp_path}/data"])
    assert (path.expansion.strength, path.guidance.start_step) == (0.2, 10)
