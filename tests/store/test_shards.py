"""Shards: whatever interrupts or shares the work, each image is stored once and read back."""

import os
import random
import tarfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow.parquet
import pytest
from standin import Killed, StandIn, interrupted
from stored import FACTOR, FORMATS, SHARDED, SOURCES, loaded, pixels, standin_jobs

from distdiff.errors import UserError
from distdiff.expansion.job import ExpansionJob
from distdiff.expansion.plan import ExpansionPlan
from distdiff.expansion.writer import metadata_row
from distdiff.methods.item import WorkItem
from distdiff.store.directory import ExpandedDirectory
from distdiff.store.formats.base import Storage
from distdiff.store.journal import read_journals
from distdiff.store.reading import read_expanded


@pytest.fixture
def job(tmp_path: Path) -> Callable[..., tuple[ExpansionJob, StandIn]]:
    return standin_jobs(tmp_path)


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
