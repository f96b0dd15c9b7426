"""The studies behind the README's figures compose, report on the split that their pages name, and share tables as they say."""

from pathlib import Path

import pytest
from conftest import compose
from scripts import study_script

ON_VALIDATION = {"signs_single_margin"}
NAMES = [
    *(
        "digits_2",
        "digits_5",
        "digits_10",
        "digits_2_spread",
        "digits_5_spread",
        "digits_2_best",
        "digits_5_best",
        "digits_10_best",
        "digits_2_few_spread",
    ),
    *("digits_2_factors", "signs_class", "signs_class_best", "signs_class_strong", "signs_class_probe"),
    *("signs_single", "signs_single_strong", "signs_single_margin", "signs_single_guided", "signs_single_probe"),
]


@pytest.fixture(scope="module")
def yardstick():
    return study_script("yardstick")


def test_every_study_is_tested_here(yardstick) -> None:
    assert sorted(yardstick.STUDIES) == sorted(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_study_composes(yardstick, name: str, pipeline_folder: Path, tmp_path: Path) -> None:
    keys = list(yardstick.STUDIES[name][1])
    if name.startswith("signs"):
        for part in ("train", "validation", "test"):
            for label in range(10):
                (tmp_path / "study" / part / str(label)).mkdir(parents=True)
        for prompts in ("class", "single"):
            (tmp_path / prompts).mkdir()
            (tmp_path / prompts / "pipeline").symlink_to(pipeline_folder)
        keys += yardstick.sign_keys(name.split("_")[1], tmp_path, tmp_path)
    config = compose("run", keys)
    assert config.study.split == ("validation" if name in ON_VALIDATION else "test")
    if name.startswith("digits"):
        factors = config.study.factors or [config.expansion.factor]
        assert config.dataset.per_class == int(name.split("_")[1])
        assert len(factors) > 1 or config.dataset.per_class * factors[0] == 20  # 200 images a row and draw
    else:
        assert (config.dataset.per_class, config.expansion.factor) == (5, 5)
        assert config.expansion.strength == (0.95 if "_class" in name else 0.3)
    assert ("original_best" in config.study.methods) == (config.study.best.classifiers is not None)


def test_studies_that_share_a_table_are_of_the_same_images(yardstick) -> None:
    def of_images(name: str) -> set[str]:
        return {key for key in yardstick.STUDIES[name][1] if key.startswith(("dataset", "generator", "expansion"))}

    shared = {name: other for name, other in yardstick.TABLES.items() if other in yardstick.STUDIES}
    assert len(shared) > 3
    for name, other in shared.items():
        assert of_images(name) == of_images(other)
        assert yardstick.table_of(name) == yardstick.table_of(other)
