"""Every storage format: the same images and labels for `datasets`, `webdataset` and the study."""

import io
import json
from collections.abc import Callable
from pathlib import Path

import datasets
import numpy as np
import pyarrow.parquet
import pytest
import torch
import webdataset
from conftest import compose
from PIL import Image
from standin import StandIn, standin_job_of
from stored import FACTOR, FORMATS, SHARDED, SOURCES, loaded, pixels, standin_jobs

from distdiff.commands.train import train
from distdiff.data.datasets import load_dataset
from distdiff.data.pixels import to_image
from distdiff.data.splits.few_shot import draw_few_shot
from distdiff.errors import UserError
from distdiff.expansion.job import ExpansionJob
from distdiff.store.directory import ExpandedDirectory
from distdiff.store.encoding import ImageEncoding
from distdiff.store.formats.shards import member_key
from distdiff.store.names import safe_name
from distdiff.store.reading import read_expanded


@pytest.fixture
def job(tmp_path: Path) -> Callable[..., tuple[ExpansionJob, StandIn]]:
    return standin_jobs(tmp_path)


@pytest.mark.parametrize("storage", FORMATS)
@pytest.mark.parametrize("image_format", ["png", "jpeg", "webp"])
def test_every_format_reads_back_with_labels(job, storage: str, image_format: str) -> None:
    expected = job("reference")[0]
    expected.run("test")
    made = job("made", f"expansion.format={storage}", f"expansion.image_format={image_format}")[0]
    made.run("test")
    limit = 40 if image_format == "jpeg" else 0  # of 255 levels, at edges: JPEG subsamples colours
    for one, two in zip(loaded(expected.path, "imagefolder"), loaded(made.path, storage), strict=True):
        assert one[:2] == two[:2]
        assert np.abs(one[2] - two[2]).max() <= limit
    one, two = pixels(expected.path), pixels(made.path)
    assert list(one) == list(two)
    assert len(one) == SOURCES * FACTOR
    assert max(np.abs(one[name] - two[name]).max() for name in one) <= limit
    tables = [pyarrow.parquet.read_table(path.path / "metadata.parquet") for path in (expected, made)]
    for column in set(tables[0].column_names) - {"file_name"}:
        assert tables[0][column] == tables[1][column]
    assert not list(made.path.glob(".*"))
    files = [path for path in made.path.rglob("*") if path.is_file()]
    assert len(files) == 4 + (SOURCES * FACTOR if storage == "imagefolder" else 6)  # 28 images in shards of 5


def test_webdataset_reads_the_shards_and_datasets_without_the_card(job) -> None:
    made = job("made", "expansion.format=webdataset")[0]
    made.run("test")
    shards = sorted(map(str, made.path.glob("data/*.tar")))
    expected = pixels(made.path)
    samples = list(webdataset.WebDataset(shards, shardshuffle=False).decode("pil"))
    assert len(samples) == len(expected)
    for sample in samples:
        assert sample["cls"] == sample["json"]["label"] == ("train", "b.c").index(sample["json"]["class_name"])
        np.testing.assert_array_equal(sample["png"], expected[sample["json"]["file_name"].removesuffix(".png")])
    images = datasets.load_dataset("webdataset", data_files=shards, split="train")
    assert {row["json"]["file_name"] for row in images} == {sample["json"]["file_name"] for sample in samples}
    assert all(row["png"].size == (32, 32) for row in images)


def test_keys_end_at_their_first_dot_and_stay_distinct() -> None:
    names = ["a.b", "a%2Eb", "a", ".a", "%2Ea", "a.", "a%2E", "a..b", "x.y.z", "n" * 200 + ".", "n" * 200 + "%2E"]
    keys = [member_key(f"{safe_name(name)}/{safe_name(name)}__0000.webp") for name in names]
    assert len(set(keys)) == len(names)
    assert all("." not in key and extension == "webp" for key, extension in keys)


def test_a_directory_begun_in_another_way_is_refused_and_untouched(job) -> None:
    for begun, other, words in [
        ((), "expansion.format=parquet", "expansion.format: imagefolder there, parquet here"),
        ((), "expansion.image_format=webp", "expansion.image_format: png there, webp here"),
        ((), "expansion.save_size=16", "expansion.save_size: None there, 16 here"),
        (("expansion.image_format=jpeg",), "expansion.quality=90", "expansion.quality: 95 there, 90 here"),
        (("expansion.format=webdataset",), "expansion.shard_size=6", "expansion.shard_size: 5 there, 6 here"),
    ]:
        made = job(other, *begun)[0]
        if not begun:
            made.run("test")
        before = {path: path.read_bytes() for path in made.path.rglob("*") if path.is_file()}
        with pytest.raises(UserError, match=words) as caught:
            job(other, *begun, other)
        assert "\n" not in str(caught.value)
        assert {path: path.read_bytes() for path in made.path.rglob("*") if path.is_file()} == before
        job(other, *begun, "generator.resolution=32", "expansion.save_size=32")  # what it has anyway


@pytest.mark.parametrize("storage", FORMATS)
def test_save_size_is_lanczos_with_antialiasing(job, storage: str) -> None:
    whole, small = job("whole")[0], job("small", f"expansion.format={storage}", "expansion.save_size=12")[0]
    whole.run("test")
    small.run("test")
    large = pixels(whole.path)
    for name, image in pixels(small.path).items():
        picture = Image.fromarray(large[name].astype(np.uint8)).resize((12, 12), Image.Resampling.LANCZOS)
        np.testing.assert_array_equal(image, np.asarray(picture))


def test_quality_is_the_codecs() -> None:
    image = to_image(torch.rand(3, 64, 64, generator=torch.Generator().manual_seed(0)))
    for image_format in ("jpeg", "webp"):
        low, high = (ImageEncoding(image_format, quality).encode(image) for quality in (20, 90))
        assert Image.open(io.BytesIO(low)).format == image_format.upper()
        assert len(low) < len(high)


def test_lossy_images_are_another_content_to_cached_classifiers(job) -> None:
    identities = []
    for number, keys in enumerate(([], ["image_format=webp"], ["image_format=jpeg"], ["save_size=16"])):
        made = job(str(number), *(f"expansion.{key}" for key in keys))[0]
        identities.append(ExpandedDirectory(made.path).identity(FACTOR))
    assert identities[0] == identities[1] == f"{made.fingerprint}x{FACTOR}"
    assert len(set(identities)) == 3


@pytest.mark.parametrize("storage", SHARDED)
def test_metadata_that_lead_outside_are_refused(job, tmp_path: Path, storage: str) -> None:
    made = job("made", f"expansion.format={storage}")[0]
    made.run("test")
    path = made.path / "metadata.parquet"
    table = pyarrow.parquet.read_table(path)
    (tmp_path / "secret.tar").write_bytes(b"secret")
    (made.path / "data" / "link.tar").symlink_to(tmp_path / "secret.tar")
    for name in ("../secret.tar", str(tmp_path / "secret.tar"), "data/link.tar"):
        escaped = table.set_column(table.column_names.index("shard"), "shard", [[name] * len(table)])
        pyarrow.parquet.write_table(escaped, path)
        with pytest.raises(UserError, match="outside"):
            read_expanded(made.path)


def test_a_classifier_trains_on_shards(tmp_path: Path) -> None:
    folders = []
    for storage in SHARDED:
        config = compose("expand", ["dataset.per_class=1", f"expansion.format={storage}", "expansion.shard_size=4"])
        sources = draw_few_shot(load_dataset(config.dataset).train, 1, 0)
        made, _ = standin_job_of(sources, config, tmp_path / storage)
        made.run("test")
        folders.append(str(made.path))
    run = ["train.steps=2", "logger=none", "dataset.per_class=1", f"paths.output_dir={tmp_path}/outputs"]
    (tmp_path / "run").mkdir()
    train(compose("train", [*run, f"train.expanded=[{','.join(folders)}]"]), tmp_path / "run")
    assert (
        json.loads((tmp_path / "run" / "results.json").read_text())["num_train"]
        == 10 + 2 * 10 * config.expansion.factor
    )
