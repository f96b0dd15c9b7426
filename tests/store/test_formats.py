"""Every storage format: the same images and labels for `datasets`, `webdataset` and the study, whatever interrupts it."""

import io
import json
import os
import random
import tarfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import datasets
import numpy as np
import pyarrow.parquet
import pytest
import torch
import webdataset
from conftest import compose
from PIL import Image
from standin import Killed, StandIn, interrupted, standin_job, standin_job_of

from distdiff.commands.export import export
from distdiff.commands.train import train
from distdiff.data.datasets import load_dataset
from distdiff.errors import UserError
from distdiff.expansion.job import ExpansionJob
from distdiff.expansion.plan import ExpansionPlan
from distdiff.methods.item import WorkItem
from distdiff.expansion.writer import metadata_row
from distdiff.store.directory import ExpandedDirectory
from distdiff.store.encoding import ImageEncoding
from distdiff.store.filtering import RowFilter
from distdiff.store.formats.base import Storage
from distdiff.store.formats.shards import member_key
from distdiff.store.journal import read_journals
from distdiff.store.names import safe_name
from distdiff.store.reading import read_expanded

FORMATS, SHARDED = ("imagefolder", "webdataset", "parquet"), ("webdataset", "parquet")
SOURCES, FACTOR = 7, 4


@pytest.fixture
def job(tmp_path: Path) -> Callable[..., tuple[ExpansionJob, StandIn]]:
    """An expansion of 7 sources by a stand-in, in shards of 5."""

    def make(folder: str, *overrides: str, sources: int = SOURCES) -> tuple[ExpansionJob, StandIn]:
        given = [f"expansion.factor={FACTOR}", "expansion.batch_size=3", "expansion.shard_size=5", "logger=none"]
        config = compose("expand", [*given, *overrides])
        return standin_job(config, tmp_path / folder, sources)

    return make


def pixels(path: Path) -> dict[str, np.ndarray]:
    """By file name without its extension."""
    images = read_expanded(path)
    return {images.keys[i].rpartition(".")[0]: np.asarray(images.image(i)).astype(int) for i in range(len(images))}


def loaded(path: Path, storage: str) -> list[tuple[str, str, np.ndarray]]:
    """Class name, source's name and pixels of each image as `datasets` gives them, in the order of both names."""
    if storage == "imagefolder":
        images = datasets.load_dataset("imagefolder", data_dir=str(path), split="train")
    else:
        images = datasets.load_dataset(str(path), split="train")
    label = "cls" if storage == "webdataset" else "label"
    assert isinstance(images.features[label], datasets.ClassLabel)
    (picture,) = (name for name, kind in images.features.items() if isinstance(kind, datasets.Image))
    made = []
    for row in images:
        metadata = row["json"] if storage == "webdataset" else row
        name = images.features[label].int2str(row[label])
        assert name == metadata["class_name"]
        made.append((name, f"{metadata['source']} {metadata['copy']}", np.asarray(row[picture]).astype(int)))
    return sorted(made, key=lambda entry: entry[:2])


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


@pytest.mark.parametrize("storage", SHARDED)
def test_a_torn_open_shard_costs_only_the_images_that_it_lost(job, monkeypatch, tmp_path: Path, storage: str) -> None:
    """At most one batch's images after another are cut off at a random byte, or garbage is appended, or a line is torn."""
    chance = random.Random(0)
    expected = job("whole", f"expansion.format={storage}")[0]
    expected.run("test")
    for trial in range(4):
        folder, finished = f"torn{trial}", {}
        for _ in range(2):
            made, synthesizer = job(folder, f"expansion.format={storage}")
            interrupted(made, monkeypatch, chance.randint(1, 3))
            assert not finished.keys() & set(synthesizer.made)
            (journal,) = made.path.glob(".journal-*")
            for tar in made.path.glob(".unfinished/*/*.tar"):
                with open(tar, "r+b") as file:
                    if chance.random() < 0.5:
                        file.truncate(chance.randrange(tar.stat().st_size + 1))
                    else:
                        file.seek(0, 2)
                        file.write(chance.randbytes(chance.randrange(3000)))
            if chance.random() < 0.3:
                with open(journal, "r+b") as file:
                    file.truncate(journal.stat().st_size - chance.randrange(1, 100))
            finished = ExpandedDirectory(made.path).rows()
        made, synthesizer = job(folder, f"expansion.format={storage}")
        made.run("test")
        assert not finished.keys() & set(synthesizer.made)
        assert len(finished) + len(synthesizer.made) == SOURCES * FACTOR
        one, two = loaded(expected.path, storage), loaded(made.path, storage)
        assert [entry[:2] for entry in one] == [entry[:2] for entry in two]
        assert all((a[2] == b[2]).all() for a, b in zip(one, two, strict=True))
        one, two = pixels(expected.path), pixels(made.path)
        assert list(one) == list(two)
        assert all((one[name] == two[name]).all() for name in one)
        assert not list(made.path.glob(".*"))


@pytest.mark.parametrize("storage", SHARDED)
def test_another_image_in_a_lost_ones_place_is_not_taken_for_it(job, storage: str) -> None:
    path, rows = job("made", f"expansion.format={storage}")[0].path, {}
    for label, name in enumerate("abc"):
        rows[name] = metadata_row(WorkItem(0, 0, 1, 0.5, label % 2, "train", name, f"train/{name}.png"))
    first, second, third = (chance.randbytes(size) for chance in [random.Random(0)] for size in (700, 900, 400))

    def begun() -> Storage:
        begun = ExpandedDirectory(path).storage
        begun.begin("0-of-1")
        return begun

    begun().write([(rows["a"], first), (rows["b"], second)])
    (tar,) = path.glob(".unfinished/*/*.tar")
    os.truncate(tar, tar.stat().st_size - 1)
    again = begun()
    assert list(again.present(list(read_journals(path)))) == ["train/a.png"]
    again.write([(rows["c"], third)])
    with open(tar, "ab") as file:
        file.write(b"?" * 10_000)
    there = again.present(list(read_journals(path)))
    assert list(there) == ["train/a.png", "train/c.png"]
    again.seal()
    read = again.reader(list(there.values()))
    assert [read(0), read(1)] == [first, third]
    (shard,) = path.glob("data/*")
    if storage == "webdataset":
        with tarfile.open(shard) as file:
            members = [f"train/{name}.{kind}" for name in "ac" for kind in ("png", "cls", "json")]
            assert file.getnames() == members
        assert shard.stat().st_size == there["train/c.png"]["end"] + 1024
    else:
        assert pyarrow.parquet.read_table(shard)["file_name"].to_pylist() == list(there)


@pytest.mark.parametrize("storage", SHARDED)
def test_shares_that_write_and_close_shards_at_once_lose_nothing(job, storage: str) -> None:
    path, images = job("made", f"expansion.format={storage}")[0].path, 60

    def write(share: int) -> dict[str, bytes]:
        chance, made, written = random.Random(share), ExpandedDirectory(path).storage, {}
        made.begin(f"{share}-of-3")
        for number in range(0, images, 4):
            batch = []
            for position in range(number, number + 4):
                name = f"train/{share} {position}.png"
                row = metadata_row(WorkItem(0, position, 1, 0.5, 0, "train", name, name))
                batch.append((row, chance.randbytes(chance.randrange(1, 3000))))
            made.write(batch)
            written |= {row["file_name"]: image for row, image in batch}
            assert written.keys() <= ExpandedDirectory(path).rows().keys()
        return written

    with ThreadPoolExecutor(3) as pool:
        written = {name: image for images in pool.map(write, range(3)) for name, image in images.items()}
    directory = ExpandedDirectory(path)
    directory.storage.seal()
    rows = directory.rows()
    assert rows.keys() == written.keys()
    read = directory.storage.reader(list(rows.values()))
    assert all(read(index) == written[name] for index, name in enumerate(rows))
    assert len(list(path.glob("data/*"))) == 3 * images / 5


@pytest.mark.parametrize("storage", SHARDED)
def test_a_crash_between_a_shard_and_what_it_is_made_from_makes_it_once(job, monkeypatch, storage: str) -> None:
    made = job("made", f"expansion.format={storage}")[0]
    kind, kept = type(ExpandedDirectory(made.path).storage), []
    close = kind.close

    def die(self, shard):
        tar = shard.path.read_bytes()
        close(self, shard)
        if not kept:
            kept.append(shard.path)
            if storage == "parquet":
                shard.path.write_bytes(tar)
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(kind, "close", die)
        with pytest.raises(Killed):
            made.run("test")
    (shard,) = made.path.glob("data/*")
    before = shard.read_bytes()
    again, synthesizer = job("made", f"expansion.format={storage}")
    again.run("test")
    assert len(synthesizer.made) == SOURCES * FACTOR - 5
    assert shard.read_bytes() == before
    assert len(loaded(made.path, storage)) == SOURCES * FACTOR


@pytest.mark.parametrize("storage", FORMATS)
def test_shares_and_a_larger_factor_add_and_rewrite_nothing(job, monkeypatch, storage: str) -> None:
    keys = [f"expansion.format={storage}", "expansion.total_split=2"]
    stopped = job("made", *keys, "expansion.split=0")[0]
    interrupted(stopped, monkeypatch, 2)  # its open shard is left to whoever finishes
    second = job("made", *keys, "expansion.split=1")[0]
    assert second.run("test") == SOURCES * FACTOR // 2 - 6
    rest, synthesizer = job("made", *keys[:1])
    assert rest.run("test") == 0
    assert len(synthesizer.made) == SOURCES * FACTOR // 2 - 6
    images = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in made_files(rest.path)}
    assert len(loaded(rest.path, storage)) == SOURCES * FACTOR  # and must not be what `datasets` remembers later
    larger, synthesizer = job("made", *keys[:1], f"expansion.factor={FACTOR + 2}")
    larger.run("test")
    assert len(synthesizer.made) == 2 * SOURCES
    assert images.items() <= {p: (p.read_bytes(), p.stat().st_mtime_ns) for p in made_files(rest.path)}.items()
    whole = job("whole", f"expansion.factor={FACTOR + 2}")[0]
    whole.run("test")
    one, two = pixels(whole.path), pixels(larger.path)
    assert list(one) == list(two)
    assert all((one[name] == two[name]).all() for name in one)
    assert len(read_expanded(larger.path, contents=ExpansionPlan(larger.sources, 2, 0.5, larger.seed))) == 2 * SOURCES
    assert len(loaded(larger.path, storage)) == len(one)


def made_files(folder: Path) -> list[Path]:
    return [path for path in folder.glob("*/*") if path.suffix in (".png", ".tar", ".parquet")]


def test_a_lost_shard_is_made_again_under_another_name(job) -> None:
    """What the metadata say of the lost one must not be taken for the new one's images."""
    made = job("made", "expansion.format=webdataset")[0]
    made.run("test")
    before = pixels(made.path)
    lost = sorted(made.path.glob("data/*.tar"))[-1]
    held = sum(row["shard"] == f"data/{lost.name}" for row in ExpandedDirectory(made.path).rows().values())
    lost.unlink()
    with pytest.raises(UserError, match="lacks its file data/"):
        read_expanded(made.path)
    again, synthesizer = job("made", "expansion.format=webdataset")
    again.run("test")
    assert len(synthesizer.made) == held
    assert not lost.exists()
    after = pixels(made.path)
    assert list(before) == list(after)
    assert all((before[name] == after[name]).all() for name in before)


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
    image = torch.rand(3, 64, 64, generator=torch.Generator().manual_seed(0))
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
        sources = load_dataset(config.dataset).train.select(range(4))
        made, _ = standin_job_of(sources, config, tmp_path / storage)
        made.run("test")
        folders.append(str(made.path))
    run = ["train.steps=2", "logger=none", "dataset.per_class=1", f"paths.output_dir={tmp_path}/outputs"]
    (tmp_path / "run").mkdir()
    train(compose("train", [*run, f"train.expanded=[{','.join(folders)}]"]), tmp_path / "run")
    assert (
        json.loads((tmp_path / "run" / "results.json").read_text())["num_train"] == 10 + 2 * 4 * config.expansion.factor
    )


class WithColumns(StandIn):
    """Brings columns of its own; `score` is missing for the first copies, which fill the first shard."""

    def forward(self, items):
        made = super().forward(items)
        own = {
            "verdict": [f"copy {item.copy}" for item in items],
            "sure": [item.copy == 1 for item in items],
            "tries": [item.copy if item.copy < 2 else None for item in items],
            "score": [(None, 1, 0.25, -3)[item.copy] for item in items],
            "nothing": [None for _ in items],
        }
        return replace(made, columns=made.columns | own)


OWN_COLUMNS = {"nothing": "string", "score": "float64", "sure": "bool", "tries": "int64", "verdict": "string"}


@pytest.mark.parametrize("storage", FORMATS)
def test_columns_that_a_method_brings_are_typed_filtered_merged_and_loaded(
    job, tmp_path: Path, monkeypatch, storage: str
) -> None:
    made, _ = job("made", f"expansion.format={storage}")
    made.synthesizer = lambda title: WithColumns()
    interrupted(made, monkeypatch, batches=4)  # rows come from journals of two runs
    made.run("test")
    plain, _ = job("plain")
    plain.run("test")
    (tmp_path / "run").mkdir()
    keys = [f"export.source=[{made.path},{plain.path}]", f"export.output_dir={tmp_path}/merged"]
    merged = export(compose("export", [*keys, f"export.format={storage}", "export.shard_size=5"]), tmp_path / "run")
    for path, others in ((made.path, 0), (merged, SOURCES * FACTOR)):
        features = datasets.Features.from_arrow_schema(pyarrow.parquet.read_schema(path / "metadata.parquet"))
        assert {name: features[name].dtype for name in OWN_COLUMNS} == OWN_COLUMNS
        rows = ExpandedDirectory(path).rows().values()
        assert [row["verdict"] for row in rows].count(None) == others
        for row in (row for row in rows if row["verdict"]):
            copy = row["copy"]
            assert (row["verdict"], row["sure"], row["nothing"]) == (f"copy {copy}", copy == 1, None)
            assert (row["tries"], row["score"]) == ((0, 1, None, None)[copy], (None, 1, 0.25, -3)[copy])
        kept = read_expanded(path, where=RowFilter("train.where", "score < 0.5 and verdict != 'copy 2' or sure"))
        assert len(kept) == 2 * SOURCES
        loaded(path, storage)
        if storage != "imagefolder":
            table = datasets.load_dataset(str(path), split="train", keep_in_memory=True)
            scores = [row["score"] for row in table["json"]] if storage == "webdataset" else table["score"]
            assert sorted(scores, key=str) == sorted((row["score"] for row in rows), key=str)


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("size", 1, "must not call a metadata column 'size'"),
        ("label", 1, "must not call a metadata column 'label'"),
        ("mask_file_name", "x.png", "must not call a metadata column 'mask_file_name'"),
        ("pair", [1, 2], r"column 'pair' cannot hold \[1, 2\]: what can be stored is"),
        ("hash", 2**64, "column 'hash' cannot hold 18446744073709551616"),
    ],
)
def test_a_column_that_cannot_be_stored_is_refused_at_the_first_batch(job, name: str, value, reason: str) -> None:
    made, synthesizer = job("made")

    class WithColumn(StandIn):
        def forward(self, items):
            done = synthesizer(items)
            return replace(done, columns=done.columns | {name: [value] * len(items)})

    made.synthesizer = lambda title: WithColumn()
    with pytest.raises(UserError, match=reason):
        made.run("test")
    assert len(synthesizer.made) == 3
