"""`tune.criterion=agreement`: what it looks at, what it chooses, and what is made of the choice."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import compose
from sklearn.metrics import cohen_kappa_score

from distdiff.caching.stages import StageCache
from distdiff.classification.training import few_shot_training_set
from distdiff.commands.expand import expand
from distdiff.data.datasets import load_dataset
from distdiff.encoders.guide import TrainedGuide
from distdiff.errors import UserError
from distdiff.expansion.generators import Generators
from distdiff.methods.img2img import Img2ImgSampler
from distdiff.tuning import agreement
from distdiff.tuning.agreement import REAL, Agreement, Seen, StrengthTuner
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
        ([*SPACE, "tune.criterion=agrement"], "tune.criterion=agrement"),
        ([*SPACE, "tune.strengths=[0.5,0.5]"], "not allowed with tune.criterion=agreement: two or more values"),
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
    seen, learnt = [], {}
    own, trained = StrengthTuner._seen_in_fold, TrainedGuide.encoder

    def watched(self, encoder, features, rest, held_out, copies):
        found, known = own(self, encoder, features, rest, held_out, copies)
        sources = {name: [each.source for each in of_name] for name, of_name in found.items()}
        seen.append((learnt[id(encoder)], {*rest.parts[0].names}, {*held_out.names}, sources))
        return found, known

    def watched_guide(self, data, seed, title):
        guide = trained(self, data, seed, title)
        learnt[id(guide)] = {*data.parts[0].names}
        seen_guides.append(guide)  # so that no other has its id
        return guide

    seen_guides = []
    monkeypatch.setattr(StrengthTuner, "_seen_in_fold", watched)
    monkeypatch.setattr(TrainedGuide, "encoder", watched_guide)
    given = [*small_run, "dataset.per_class=3", "tune.images=60"]
    config = compose("expand", [*SPACE, *given])
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
    made = expand(config, tmp_path / "first")
    assert len(seen) == 3  # folds
    for of_guide, rest, held_out, sources in seen:
        assert of_guide == rest
        assert (len(rest), len(held_out)) == (20, 10)
        assert not rest & held_out
        assert sorted(sources[REAL]) == sorted(held_out)
        for strength in ("0.5", "0.9"):
            assert len(sources[strength]) == 20
            assert {*sources[strength]} == held_out
    record = json.loads((tmp_path / "first" / RECORD).read_text())
    assert [each["strength"] for each in record["candidates"]] == [0.5, 0.9]
    assert [each["images"] for each in record["candidates"]] == [60, 60]
    assert json.loads((made / "manifest.json").read_text())["tuning"] == record
    assert not list((tmp_path / "outputs/cache/tuning").iterdir())
    said = " ".join(capsys.readouterr().out.split())
    assert "2 strengths, 60 unguided copies at each" in said
    assert "3 guides are trained" in said
    assert expand(config, tmp_path / "second") == made
    assert len(seen) == 3
    assert json.loads((tmp_path / "second/results.json").read_text())["tuning"] == record
    chosen = [] if record["strength"] is None else [f"expansion.strength={record['strength']}"]
    typed = compose("expand", [*small_run, "dataset.per_class=3", *chosen])
    assert expand(typed, tmp_path / "second") == made


def pairs(count: int, wrong: float, sources: int) -> list[Seen]:
    """So many images of ten classes, of so many sources, a share of which is seen as the next class."""
    labels = np.arange(count) % 10
    missed = np.arange(count) < round(wrong * count)
    return [
        Seen(int(label), int((label + 1) % 10 if miss else label), str(place % sources))
        for place, (label, miss) in enumerate(zip(labels, missed, strict=True))
    ]


@pytest.mark.parametrize(
    ("shares", "real", "chosen"),
    [
        ({0.3: 0.1, 0.5: 0.2, 0.9: 0.8}, 0.1, 0.5),
        ({0.3: 0.6, 0.5: 0.6, 0.9: 0.6}, 0.1, 0.9),  # missed for their style, at all strengths alike
        (
            {0.3: 0.8, 0.5: 0.8, 0.9: 0.8},
            0.0,
            None,
        ),  # too few are recognised at the smallest strength, for what real ones are
        ({0.3: 0.9, 0.5: 0.9, 0.9: 0.9}, 0.9, None),  # none beyond chance, real ones neither
        ({0.3: 0.0, 0.5: 0.0, 0.9: 0.0}, 0.95, None),  # real ones are recognised less often than by chance
    ],
)
def test_the_largest_strength_is_chosen_up_to_which_copies_keep_their_class(
    small_run: list[str], monkeypatch: pytest.MonkeyPatch, capsys, shares: dict, real: float, chosen: float | None
) -> None:
    found = {REAL: pairs(20, real, 20)} | {str(strength): pairs(100, wrong, 20) for strength, wrong in shares.items()}
    monkeypatch.setattr(StrengthTuner, "_seen", lambda *_: found)
    keys = ["tune.strengths=[0.5,0.3,0.9]", "dataset.per_class=2", "tune.images=20", "guidance=direct"]
    config = compose("expand", [*SPACE, *small_run, *keys])
    made, record = StrengthTuner(config, *parts(config)).chosen()
    assert record["strength"] == chosen
    assert made.expansion.strength == (chosen or config.expansion.strength)
    assert (made.expansion.tune, made.expansion.factor, made.guidance.name) == (False, 2, "direct")
    for each, wrong in zip(record["candidates"], shares.values(), strict=True):
        labels, seen, _ = zip(*pairs(100, wrong, 20), strict=True)
        assert each["agreement"] == pytest.approx(cohen_kappa_score(labels, seen))
    said = " ".join(capsys.readouterr().out.split())
    stays = f"chosen: nothing, expansion.strength={config.expansion.strength} stays"
    assert (f"chosen: strength {chosen}, the largest" if chosen else stays) in said


def test_standard_errors_are_by_source_and_agree_with_simulations() -> None:
    """Copies of one source are seen alike: of six sources in ten rightly, and then, for `chance`, at random."""
    rng = np.random.default_rng(0)
    kappas, errors, by_chance, chances = [], [], [], []
    for _ in range(400):
        known = rng.random(40) < 0.6
        labels, sources = np.arange(200) % 10, np.arange(200) % 40
        seen = np.where(known[sources], labels, (labels + rng.integers(1, 10, 200)) % 10)
        found = Agreement.of(
            [Seen(*map(int, each[:2]), str(each[2])) for each in zip(labels, seen, sources, strict=True)]
        )
        kappas.append(found.kappa)
        errors.append(found.error)
        blind = rng.integers(0, 10, 40)[sources]  # as copies of one source are alike
        found = Agreement.of(
            [Seen(*map(int, each[:2]), str(each[2])) for each in zip(labels, blind, sources, strict=True)]
        )
        by_chance.append(found.kappa)
        chances.append(found.chance)
    assert np.mean(errors) == pytest.approx(np.std(kappas), rel=0.1)
    assert np.mean(chances) == pytest.approx(np.std(by_chance), rel=0.15)
    assert abs(np.mean(by_chance)) < 0.01


def test_a_single_class_that_is_seen_everywhere_says_nothing() -> None:
    assert Agreement.of([Seen(1, 1, "a"), Seen(1, 1, "b")]).kappa == 0
    assert Agreement.of([]).is_by_chance


def test_a_search_goes_on_where_it_was_killed(small_run: list[str], tmp_path: Path, monkeypatch) -> None:
    """In the middle of the second strength: the images that are there are not made again."""
    config = compose("expand", [*SPACE, *small_run, "dataset.per_class=2", "tune.images=20"])
    made, left = [], [4]
    own = Img2ImgSampler.forward

    def forward(self, items):
        if not left[0]:
            raise KeyboardInterrupt
        left[0] -= 1
        made.extend((item.strength, item.file_name) for item in items)
        return own(self, items)

    monkeypatch.setattr(Img2ImgSampler, "forward", forward)
    with pytest.raises(SystemExit):  # which Lightning makes of Ctrl-C
        StrengthTuner(config, *parts(config)).chosen()
    left[0] = 100
    _, record = StrengthTuner(config, *parts(config)).chosen()
    assert len(made) == len({*made}) == 2 * 20
    assert not list((tmp_path / "outputs/cache/tuning").iterdir())
    assert StrengthTuner(config, *parts(config)).chosen()[1] == record
    assert len(made) == 2 * 20


def test_images_that_cannot_be_read_are_neither_counted_nor_told_again(
    small_run: list[str], image_folder: Path, tmp_path: Path, capsys
) -> None:
    """They were left out, and told, before the search. Here they are more than a quarter of them and the sources of copies."""
    folder = tmp_path / "images"
    shutil.copytree(image_folder, folder)
    for number in range(2):
        (folder / f"cat/broken{number}.png").write_bytes(b"no image")
    keys = [
        "dataset=imagefolder",
        f"dataset.root={folder}",
        "dataset.test_fraction=0.1",
        "tune.images=2",
        "tune.folds=2",
    ]
    config = compose("expand", [*SPACE, *small_run, *keys])
    data, *more = parts(config)
    assert len(data.parts[0].unreadable) >= 1
    capsys.readouterr()
    tuner = StrengthTuner(config, data, *more)
    assert len(tuner.sources) == 2
    tuner.chosen()
    assert "cannot be read" not in capsys.readouterr().out


def test_features_that_are_not_trained_are_computed_once(small_run: list[str], monkeypatch) -> None:
    looked, own = [], agreement.image_features
    monkeypatch.setattr(
        agreement, "image_features", lambda images, *more: looked.append(len(images)) or own(images, *more)
    )
    keys = ["dataset.per_class=2", "tune.images=20", "encoder=generator"]
    small_run.remove("encoder.guide.steps=3")
    config = compose("expand", [*SPACE, *small_run, *keys])
    StrengthTuner(config, *parts(config)).chosen()
    assert looked == [20, *[10] * 4]  # all real images, and the copies of two folds at two strengths


def test_a_class_with_a_single_image_has_no_image_that_features_have_not_seen(small_run: list[str]) -> None:
    config = compose("expand", [*SPACE, *small_run, "dataset.per_class=1"])
    with pytest.raises(UserError, match=r"class 0 has 1 image, and each class needs two"):
        StrengthTuner(config, *parts(config))


def test_the_nearest_prototype_is_that_of_the_largest_cosine(small_run: list[str], monkeypatch) -> None:
    """The class that is seen, against sums over all images and classes in float64."""
    config = compose("expand", [*SPACE, *small_run, "dataset.per_class=3"])
    tuner = StrengthTuner(config, *parts(config))
    features = torch.nn.functional.normalize(torch.randn(30, 7, generator=torch.Generator().manual_seed(0)), dim=1)
    rest, held_out = tuner.folds[0]
    found, _ = tuner._seen_in_fold(torch.nn.Identity(), features, rest, held_out, {})
    real = tuner.data.parts[0]
    place = {name: position for position, name in enumerate(real.names)}
    outside = np.array([place[name] for name in rest.parts[0].names])
    values = features.double().numpy()
    for each in found[REAL]:
        means = [values[outside[real.labels[outside] == label]].mean(0) for label in range(10)]
        cosines = [values[place[each.source]] @ mean / np.linalg.norm(mean) for mean in means]
        assert each.seen == int(np.argmax(cosines))
        assert each.label == real.labels[place[each.source]]
    assert len(found[REAL]) == 10
