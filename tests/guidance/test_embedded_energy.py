"""On the embedded generator, guidance does what it is for: final images have less energy than unguided ones."""

from pathlib import Path
from statistics import median

import pytest
from conftest import compose

from distdiff.caching.stages import StageCache
from distdiff.classification.training import few_shot_training_set
from distdiff.commands.configuration import load_option
from distdiff.data.datasets import load_dataset
from distdiff.expansion.assembly import Assembly
from distdiff.expansion.plan import ExpansionPlan

IMAGES = 100


@pytest.fixture(scope="module")
def expander(tmp_path_factory: pytest.TempPathFactory) -> Assembly:
    folder: Path = tmp_path_factory.mktemp("study")
    config = compose("expand", [f"paths.output_dir={folder}", "logger=none"])
    cache = StageCache(config.paths.cache_dir)
    return Assembly(config, cache)


def final_energies(expander: Assembly, method: str, **options: object) -> list[float]:
    config = expander.config
    data = few_shot_training_set(config, load_dataset(config.dataset).train, config.seed)
    guidance = load_option("guidance", method)
    for key, value in options.items():
        guidance[key] = value
    synthesizer = expander.guided(data, guidance, config.seed).synthesizer(f"{method}: expand")
    items = ExpansionPlan(data.parts[0], IMAGES // len(data.parts[0]), config.expansion.strength, config.seed)
    assert len(items) == IMAGES
    return synthesizer(items).columns["energy_after"]


def test_guidance_lowers_the_median_final_energy_of_a_hundred_images(expander: Assembly) -> None:
    """At the default ρ of each; transform from the identity (its random start can raise the energy)."""
    unguided = median(final_energies(expander, "none"))
    assert median(final_energies(expander, "direct")) < unguided
    assert median(final_energies(expander, "transform", init="identity")) < unguided
