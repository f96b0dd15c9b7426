"""`tune.criterion=agreement`: what it looks at, what it chooses, and what is made of the choice."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import compose

from distdiff.caching.stages import StageCache
from distdiff.classification.training import few_shot_training_set
from distdiff.commands.expand import expand
from distdiff.data.datasets import load_dataset
from distdiff.errors import UserError
from distdiff.expansion.generators import Generators
from distdiff.tuning.agreement import StrengthTuner
from distdiff.tuning.candidates import RECORD

SPACE = ["expansion.tune=true", "tune.criterion=agreement", "tune.strengths=[0.9,0.5]"]


def parts(config):
    data = few_shot_training_set(config, load_dataset(config.dataset).train, config.seed)
    return data, StageCache(config.paths.cache_dir), Generators()


def test_the_jobs_own_row_is_searched_at_every_strength() -> None:
    rows = compose("expand", [*SPACE, "guidance=direct", "guidance.rho=2", "selection=energy"]).options.rows.values()
    found = [(row.guidance.name, row.guidance.rho, row.selection.name, row.expansion.strength) for row in rows]
    assert found == [("direct", 2, "energy", 0.9), ("direct", 2, "energy", 0.5)]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ([*SPACE, "expansion.strength=0.5"], "expansion.strength=0.5 is not allowed with tune.criterion=agreement"),
        ([*SPACE, "tune.strengths=null"], "tune.strengths=null is not allowed with tune.criterion=agreement"),
        ([*SPACE, "tune.rhos=[1]"], "tune.rhos=.* is not allowed: tune.criterion=agreement does not read it"),
        (
            [*SPACE, "tune.recipe.steps=9"],
            "tune.recipe.steps=9 is not allowed: tune.criterion=agreement does not read it",
        ),
        (
            ["expansion.tune=true", "tune.images=9"],
            "tune.images=9 is not allowed: tune.criterion=accuracy does not read",
        ),
        ([*SPACE, "tune.criterion=agrement"], "agreement"),
        ([*SPACE, "tune.retention=0"], "tune.retention=0"),
        ([*SPACE, "method=text2img"], "not allowed with method=text2img"),
    ],
)
def test_mistakes_are_one_line(overrides: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        compose("expand", overrides)


def test_copies_are_judged_by_features_that_have_seen_neither_them_nor_their_sources(
    small_run: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    """Whole, with three folds; the second time nothing is made, and the chosen keys give the same directory."""
    seen = []
    own = StrengthTuner._seen

    def watched(self, encoder, rest, new):
        seen.append(({*rest.parts[0].keys}, [source for (source,) in new[0].sources], {*new[1].keys}))
        return own(self, encoder, rest, new)

    monkeypatch.setattr(StrengthTuner, "_seen", watched)
    given = [*small_run, "dataset.per_class=3", "tune.images=60"]
    config = compose("expand", [*SPACE, *given])
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
    made = expand(config, tmp_path / "first")
    assert len(seen) == 2 * 3  # strengths and folds
    for rest, copied, held_out in seen:
        assert (len(rest), len(held_out), len(copied)) == (20, 10, 20)
        assert not rest & held_out
        assert {source.partition("/")[2] for source in copied} == held_out
    record = json.loads((tmp_path / "first" / RECORD).read_text())
    assert [each["candidate"] for each in record["candidates"]] == ["none, strength 0.5", "none, strength 0.9"]
    assert [each["images"] for each in record["candidates"]] == [60, 60]
    assert json.loads((made / "manifest.json").read_text())["tuning"] == record
    assert not list((tmp_path / "outputs/cache/tuning").iterdir())
    assert "2 strengths, 60 copies at each" in " ".join(capsys.readouterr().out.split())
    assert expand(config, tmp_path / "second") == made
    assert len(seen) == 6
    assert json.loads((tmp_path / "second/results.json").read_text())["tuning"] == record
    chosen = [] if record["chosen"] is None else [f"expansion.strength={record['chosen'].split()[-1]}"]
    typed = compose("expand", [*small_run, "dataset.per_class=3", *chosen])
    assert expand(typed, tmp_path / "second") == made


def wrong_at(shares: dict[float, float], real: float):
    """In place of `StrengthTuner._measured`'s features: a share of copies, and of real images, is seen as the next class."""

    def seen(self: StrengthTuner, _, rest, new):
        strength = float(next(iter(self.left)).expansion.strength)
        found = []
        for images, wrong in zip(new, (shares[strength], real), strict=True):
            labels = images.labels
            missed = np.arange(len(labels)) < round(wrong * len(labels))
            found.append(list(zip(labels.tolist(), np.where(missed, (labels + 1) % 10, labels).tolist(), strict=True)))
        return found

    return seen


@pytest.mark.parametrize(
    ("shares", "real", "chosen"),
    [
        ({0.3: 0.1, 0.5: 0.2, 0.9: 0.8}, 0.1, "none, strength 0.5"),
        ({0.3: 0.7, 0.5: 0.7, 0.9: 0.7}, 0.1, "none, strength 0.9"),  # missed for their style, at all strengths alike
        ({0.3: 0.8, 0.5: 0.8, 0.9: 0.8}, 0.0, None),  # hardly any is recognised
    ],
)
def test_the_largest_strength_is_chosen_up_to_which_copies_keep_their_class(
    small_run: list[str], monkeypatch: pytest.MonkeyPatch, capsys, shares: dict, real: float, chosen: str | None
) -> None:
    """κ is that of the definition, (p − e) / (1 − e), with the share e that would agree by chance."""
    own = StrengthTuner._agreement

    def agreement(self: StrengthTuner, name: str):
        self.left = [self.candidates[name]]
        return own(self, name)

    monkeypatch.setattr(StrengthTuner, "_agreement", agreement)
    monkeypatch.setattr(StrengthTuner, "_seen", wrong_at(shares, real))
    keys = ["tune.strengths=[0.3,0.5,0.9]", "dataset.per_class=2", "tune.images=100"]
    config = compose("expand", [*SPACE, *small_run, *keys])
    found, record = StrengthTuner(config, *parts(config)).chosen()
    assert record["chosen"] == chosen
    assert found.expansion.strength == (config.expansion.strength if chosen is None else float(chosen.split()[-1]))
    assert (found.expansion.tune, found.expansion.factor) == (False, 2)
    for each, wrong in zip(record["candidates"], shares.values(), strict=True):
        chance = by_chance(wrong)
        assert each["agreement"] == pytest.approx((1 - wrong - chance) / (1 - chance))
    said = " ".join(capsys.readouterr().out.split())
    stays = f"chosen: nothing, expansion.strength={config.expansion.strength} stays"
    assert (f"chosen: {chosen}, the largest" if chosen else stays) in said


def by_chance(wrong: float) -> float:
    """The share that would agree by chance, of 100 copies in two folds, of each class as many, the first of each fold missed."""
    labels = np.sort(np.arange(50) % 10)
    seen = np.where(np.arange(50) < round(wrong * 50), (labels + 1) % 10, labels)
    return float(np.bincount(labels, minlength=10) @ np.bincount(seen, minlength=10)) / 50**2


def test_what_a_kill_has_left_does_not_stop_a_search(small_run: list[str], tmp_path: Path, monkeypatch) -> None:
    config = compose("expand", [*SPACE, *small_run, "dataset.per_class=2", "tune.images=20"])
    monkeypatch.setattr("distdiff.tuning.agreement.shutil.rmtree", lambda *_, **__: None)
    _, first = StrengthTuner(config, *parts(config)).chosen()
    monkeypatch.undo()
    for number, folder in enumerate(sorted((tmp_path / "outputs/cache/tuning").iterdir())):
        if number % 2:
            (folder / "manifest.json").unlink()
    for path in (tmp_path / "outputs/cache/agreements").glob("*/agreement.json"):
        path.unlink()
        (path.parent / "ingredients.json").unlink()
        path.parent.rmdir()
    assert StrengthTuner(config, *parts(config)).chosen()[1] == first
    assert not list((tmp_path / "outputs/cache/tuning").iterdir())


def test_a_class_with_a_single_image_has_no_image_that_features_have_not_seen(small_run: list[str]) -> None:
    config = compose("expand", [*SPACE, *small_run, "dataset.per_class=1"])
    with pytest.raises(UserError, match=r"class 0 has 1 image, and each class needs two"):
        StrengthTuner(config, *parts(config))


def test_the_nearest_prototype_is_that_of_the_largest_cosine(small_run: list[str], monkeypatch) -> None:
    """The class that `_seen` sees, against sums over all images and classes in float64."""
    config = compose("expand", [*SPACE, *small_run, "dataset.per_class=3"])
    tuner = StrengthTuner(config, *parts(config))
    rng = torch.Generator().manual_seed(0)
    known = torch.nn.functional.normalize(torch.randn(20, 7, generator=rng), dim=1)
    new = torch.nn.functional.normalize(torch.randn(10, 7, generator=rng), dim=1)
    features = iter((known, new))
    monkeypatch.setattr("distdiff.tuning.agreement.image_features", lambda *_: next(features))
    rest, held_out = tuner._folds[0]
    (found,) = tuner._seen(torch.nn.Identity(), rest, [held_out])
    labels = rest.parts[0].labels
    expected = []
    for row in new.double().numpy():
        means = [known.double().numpy()[labels == label].mean(0) for label in range(10)]
        expected.append(int(np.argmax([row @ mean / np.linalg.norm(mean) for mean in means])))
    assert found == list(zip(held_out.labels.tolist(), expected, strict=True))
