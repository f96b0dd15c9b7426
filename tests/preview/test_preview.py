"""A preview shows the very images that the expansion makes, encodes no more than it shows, and says what the job takes."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import compose
from PIL import Image

from distdiff.commands import preview as preview_module
from distdiff.commands.expand import expand
from distdiff.commands.preview import preview
from distdiff.console.progress import console
from distdiff.data.reading.fit import fit_image
from distdiff.data.sources.imagefolder import read_class_folders
from distdiff.errors import UserError
from distdiff.expansion import estimate
from distdiff.expansion.estimate import Estimate, SayEstimate
from distdiff.generator.latent_diffusion import LatentDiffusion
from distdiff.methods.img2img import Img2ImgSampler
from distdiff.methods.synthesis import Synthesized
from distdiff.preview.sheet import place, tile_side
from distdiff.preview.tiles import batches_of, spread_over_classes
from distdiff.store.names import safe_name
from distdiff.store.options import StorageOptions


@pytest.fixture
def given(small_run: list[str], image_folder: Path) -> list[str]:
    return [*small_run, "dataset=imagefolder", f"dataset.root={image_folder}"]


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many images each call of the autoencoder's encoder takes."""
    counts: list[int] = []
    encode = LatentDiffusion.encode

    def counting(self, images):
        counts.append(len(images))
        return encode(self, images)

    monkeypatch.setattr(LatentDiffusion, "encode", counting)
    return counts


def run(folder: Path, given: list[str], *overrides: str) -> dict:
    folder.mkdir()
    preview(compose("preview", [*given, *overrides]), folder)
    return json.loads((folder / "preview.json").read_text())


def shown(folder: Path, source: dict, row: int, column: int) -> np.ndarray:
    """A tile's pixels as the sheet shows them, enlarged four times."""
    side = tile_side(32)
    left, top = place(column, row, side)
    with Image.open(folder / source["sheet"]) as sheet:
        return np.asarray(sheet.crop((left, top, left + side, top + side)))[2::4, 2::4].astype(int)


@pytest.mark.parametrize("method", ["direct", "transform_official"])
def test_a_preview_shows_what_the_expansion_makes(given, tmp_path: Path, image_folder: Path, method: str) -> None:
    keys = [f"guidance={method}", "expansion.batch_size=3"]
    sheets = ["preview.sources=3", "preview.strengths=[0.5,1.0]", "preview.rhos=[0,5]"]
    made = run(tmp_path / "preview", given, *keys, *sheets)
    assert [source["class_name"] for source in made["sources"]] == ["cat", "cat", "train"]
    images = read_class_folders(str(image_folder))
    for row, strength, column, rho in ((0, 0.5, 1, 5), (1, 1.0, 0, 0)):
        folder = tmp_path / f"{row}{column}"
        folder.mkdir()
        expanded = [f"expansion.strength={strength}", f"guidance.rho={rho}"]
        directory = expand(compose("expand", [*given, *keys, *expanded]), folder)
        for source in made["sources"]:
            tile = source["tiles"][2 * row + column]
            assert (tile["strength"], tile["rho"]) == (strength, rho)
            name = f"{safe_name(source['class_name'])}/{safe_name(source['source'])}__0000.png"
            with Image.open(directory / name) as image:
                expected = np.asarray(image).astype(int)
            assert np.abs(shown(tmp_path / "preview", source, row, 1 + column) - expected).max() <= 1
    for source in made["sources"]:
        position = images.keys.index(source["source"])
        original = np.asarray(fit_image(images.image(position), 32, "crop")).astype(int)
        np.testing.assert_array_equal(shown(tmp_path / "preview", source, 0, 0), original)


def test_a_preview_encodes_only_what_it_shows_and_takes_what_is_cached(given, encoded, tmp_path: Path) -> None:
    given = [*given, "guidance=direct"]
    few = ["preview.sources=2", "preview.strengths=[0.5]"]
    first = run(tmp_path / "a", given, *few)
    assert encoded == [2]
    encoded.clear()
    config = compose("expand", given)
    (tmp_path / "expanded").mkdir()
    expand(config, tmp_path / "expanded")
    assert sum(encoded) > 2
    encoded.clear()
    second = run(tmp_path / "b", given, *few)
    assert encoded == []
    assert [s["source"] for s in first["sources"]] == [s["source"] for s in second["sources"]]
    for before, after in zip(first["sources"], second["sources"], strict=True):
        one, two = (
            np.asarray(Image.open(tmp_path / n / s["sheet"])).astype(int) for n, s in (("a", before), ("b", after))
        )
        assert np.abs(one - two)[:, : place(1, 0, tile_side(32))[0]].max() == 0
        assert np.abs(shown(tmp_path / "a", before, 0, 2) - shown(tmp_path / "b", after, 0, 2)).max() <= 1


def test_the_estimate_is_rate_and_size_times_the_whole_job(given, monkeypatch, tmp_path: Path) -> None:
    """The sampler is replaced by one that takes a known time for an image of a known size."""
    clock = [0.0]

    def forward(self, items):
        clock[0] += 0.25 * len(items)
        batch.append(len(items))
        images = torch.zeros(len(items), 3, 32, 32)
        columns = {"energy_before": [1.0] * len(items), "energy_after": [float("nan")] * len(items)}
        return Synthesized(images, columns)

    batch: list[int] = []
    monkeypatch.setattr(Img2ImgSampler, "forward", forward)
    monkeypatch.setattr(preview_module.time, "perf_counter", lambda: clock[0])
    with console.capture() as output:
        made = run(
            tmp_path / "run", given, "guidance=none", "expansion.factor=1000", "expansion.batch_size=6",
            "trainer=cpu", "preview.sources=4", "expansion.strength=[0.5,0.8]",
        )  # fmt: skip
    assert batch == [4, 4, 6, 6]  # tiles of both strengths, no ρ; then batches of the job's size
    assert made["rhos"] == [None]
    assert made["sources"][0]["tiles"][0]["energy_after"] is None
    total = made["estimate"]["images"]
    assert total % 1000 == 0
    assert made["estimate"]["images_per_second"] == pytest.approx(4)
    assert made["estimate"]["hours"] == pytest.approx(total / 4 / 3600)
    Image.new("RGB", (32, 32)).save(tmp_path / "black.png")
    size = (tmp_path / "black.png").stat().st_size
    assert made["estimate"]["bytes"] == pytest.approx(total * size)
    assert f"{total:,} images: about" in output.get().replace("\n", " ")


def test_images_with_different_schedules_are_not_in_one_batch() -> None:
    wanted = [np.array([index]) for index in range(5)]
    batches = list(batches_of(wanted, 2, [0.3, 0.5, 0.3, 0.5, 0.5]))
    assert [[place for place, _ in batch] for batch in batches] == [[0, 2], [1, 3], [4]]


def test_sources_are_spread_over_classes() -> None:
    labels = np.repeat(np.arange(10), [1, 2, 3, 4, 5, 6, 7, 8, 9, 10])
    assert set(labels[spread_over_classes(labels, 10)]) == set(range(10))
    assert labels[spread_over_classes(labels, 3)].tolist() == [0, 4, 9]
    assert np.bincount(labels[spread_over_classes(labels, 19)]).tolist() == [1, *[2] * 9]
    assert spread_over_classes(labels, 1000).tolist() == list(range(len(labels)))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("preview.strengths=[0.01]", "preview.strengths=0.01 is not allowed: of 30 steps it leaves none"),
        ("preview.strengths=[0.5,2]", "preview.strengths[1]=2.0 is not allowed: a number above 0, at most 1"),
        ("preview.rhos=[]", "preview.rhos=[] is not allowed: a list of numbers, or null"),
        ("preview.rhos=[-1]", "preview.rhos[0]=-1.0 is not allowed: a number at least 0"),
        ("preview.rhos=[0,1]", "preview.rhos=[0,1] is not allowed: guidance=none has no guidance strength ρ; method="),
        ("preview.sources=0", "preview.sources=0 is not allowed: a number at least 1"),
    ],
)
def test_a_preview_that_cannot_be_is_refused_before_anything_loads(override: str, message: str) -> None:
    with pytest.raises(UserError) as caught:
        compose("preview", [override])
    assert str(caught.value).startswith(message)


def test_an_expansion_says_what_it_will_take(given, tmp_path: Path) -> None:
    config = compose("expand", [*given, "expansion.batch_size=2"])
    with console.capture() as output:
        directory = expand(config, tmp_path)
    total = json.loads((directory / "manifest.json").read_text())["counts"]["images"]
    assert output.get().count(f"{total} images: less than a minute, ") == 1


@pytest.mark.parametrize(
    ("images", "ranks", "seconds", "batch", "line"),
    [
        (100, 1, [2, 2, 2], 1, "100 images: less than a minute, 8.6 kB on disk"),
        (1000, 1, [20, 5, 5], 2, "1,000 images: about 8.33 minutes at 2 images/s, 86 kB on disk"),
        (1000, 1, [40, 5, 5], 1, "1,000 images: about 66.7 minutes at 0.25 images/s, 86 kB on disk"),
        (800, 4, [2.0, 1.0], 2, "800 images: about 20 seconds at 40 images/s, 68.8 kB on disk"),
        (10, 1, [2], 1, None),
        (20, 2, [2], 1, None),
    ],
)
def test_what_an_expansion_will_take_is_said_as_soon_as_it_is_known(
    images: int, ranks: int, seconds: list[float], batch: int, line: str | None, monkeypatch
) -> None:
    """The clock is moved by hand, a batch of 10 black images of 86 bytes in so many `seconds`."""
    now = [0.0]
    monkeypatch.setattr(estimate.time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(estimate, "mean_size", lambda *_: 86.0)
    speaker = SayEstimate(images, StorageOptions().encoding, ranks)
    for number, length in enumerate(seconds):
        with console.capture() as output:
            speaker.on_predict_batch_start()
            now[0] += length
            made = Synthesized(torch.zeros(10, 3, 8, 8), {})
            speaker.on_predict_batch_end(None, None, made, [None] * 10, number)
        assert output.get() == (f"{line}\n" if line and number + 1 == batch else ""), number


def test_an_estimate_is_in_units_that_one_can_read() -> None:
    assert str(Estimate(1_000_000, 0.5, 450_000)) == "1,000,000 images: about 23.1 days at 0.5 images/s, 450 GB on disk"
