"""What each selection chooses, and what it is shown."""

import numpy as np
import pytest
import torch
from conftest import compose

from distdiff.caching.stages import StageCache
from distdiff.classification.training import few_shot_training_set
from distdiff.data.datasets import load_dataset
from distdiff.data.pixels import to_images
from distdiff.errors import UserError
from distdiff.expansion.assembly import Assembly
from distdiff.expansion.plan import ExpansionPlan
from distdiff.prototypes.exemplars import Exemplars
from distdiff.selection.base import Candidates
from distdiff.selection.consistency import Consistency
from distdiff.selection.energy import LowestEnergy
from distdiff.store.encoding import ImageEncoding


def candidates(energies, own_probability) -> Candidates:
    probabilities = torch.stack([torch.tensor(own_probability), 1 - torch.tensor(own_probability)], dim=1)
    features = torch.zeros(len(energies), 2)
    real = Exemplars(features, np.zeros(len(features), np.int64), tuple(map(str, range(len(features)))))
    return Candidates(
        0, [{}] * len(energies), features, features, torch.tensor(energies), probabilities, real, [], list
    )


def test_the_lowest_energies_are_chosen_and_of_equal_ones_the_first() -> None:
    shown = candidates([3.0, 1.0, 2.0, 1.0], [0.5] * 4)
    assert LowestEnergy(ratio=2).choose(shown, 2, last=False).tolist() == [1, 3]
    assert LowestEnergy(ratio=2).choose(shown, 3, last=True).tolist() == [1, 3, 2]


def test_what_the_guide_agrees_with_is_chosen_and_filled_up_only_at_last() -> None:
    shown = candidates([0.0] * 5, [0.9, 0.2, 0.6, 0.4, 0.3])
    chosen = Consistency(ratio=2)
    assert chosen.choose(shown, 2, last=False).tolist() == [0, 2]
    assert chosen.choose(shown, 1, last=True).tolist() == [0]
    assert chosen.choose(shown, 4, last=False).tolist() == [0, 2]
    assert chosen.choose(shown, 4, last=True).tolist() == [0, 2, 3, 4]


def test_candidates_grow_twofold_up_to_the_most() -> None:
    assert Consistency(ratio=2, max_ratio=7).factors(3) == [6, 12, 21]
    assert LowestEnergy(ratio=1.5).factors(3) == [5]
    with pytest.raises(UserError, match=r"^selection.max_ratio=1 is not allowed: at least selection.ratio=2, or null$"):
        Consistency(ratio=2, max_ratio=1)


@pytest.mark.parametrize("encoder", ["guide", "prototypes"])
def test_a_selection_sees_features_energies_and_probabilities_of_the_files(
    small_run, image_folder, monkeypatch, encoder: str
) -> None:
    """Oracle: the encoder, the energy and the classifier asked directly, image by image."""
    config = compose("expand", [*small_run, "dataset=imagefolder", f"dataset.root={image_folder}", "selection=energy"])
    data = few_shot_training_set(config, load_dataset(config.dataset).train, 0)
    job = Assembly(config, StageCache(config.paths.cache_dir)).job(data, 0)
    examiner = job.examiner("test: expand")
    energy = examiner.materials.image_energy
    if encoder == "prototypes":  # any encoder that is no classifier
        monkeypatch.setattr("distdiff.expansion.examining.GuideEncoder", type("Other", (), {}))
    items = [item for item in ExpansionPlan(data.parts[0], 2, 0.5, 0) if item.label == 1]
    pixels = torch.rand(len(items), 3, 32, 32, generator=torch.Generator().manual_seed(0)).mul(255).round() / 255
    files = [ImageEncoding().encode(image) for image in to_images(pixels)]
    seen = examiner.candidates(1, items, [{}] * len(items), lambda index: files[index])
    with torch.no_grad():
        for index in range(len(items)):
            one = pixels[index : index + 1]
            phi = energy.encoder(one)
            torch.testing.assert_close(seen.features[index], phi[0], atol=1e-5, rtol=0)
            expected = energy(one, torch.tensor([1]))
            torch.testing.assert_close(seen.energies[index], expected[0], atol=1e-5, rtol=0)
            if encoder == "guide":
                expected = energy.encoder.classifier(one).softmax(-1)[0]
                torch.testing.assert_close(seen.probabilities[index], expected, atol=1e-5, rtol=0)
        real = torch.cat([energy.encoder(data.parts[0].tensor(i, 32, data.fit)[None]) for i in range(len(data))])
        torch.testing.assert_close(seen.real, real[torch.from_numpy(data.parts[0].labels == 1)], atol=1e-5, rtol=0)
        torch.testing.assert_close(seen.all_real.features, real, atol=1e-5, rtol=0)
        np.testing.assert_array_equal(seen.all_real.labels, data.parts[0].labels)
        if encoder == "prototypes":
            labels = torch.from_numpy(data.parts[0].labels)
            means = torch.stack([real[labels == label].mean(0) for label in (0, 1)])
            nearest = (seen.features @ torch.nn.functional.normalize(means, dim=-1).T).argmax(-1)
            np.testing.assert_array_equal(seen.probabilities.argmax(-1), nearest)
