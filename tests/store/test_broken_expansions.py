"""Whatever becomes of a finished expanded dataset's files, one line says which file is broken, and why."""

from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import compose_once
from damages import Reader, cases, check_said, whole
from sources import load
from standin import standin_job

from distdiff.commands.export import export
from distdiff.data.images import Unreadable
from distdiff.data.readable import readable
from distdiff.store.failures import list_failures, say_failures
from distdiff.store.reading import read_expanded


def expanded(storage: str, *overrides: str) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        given = ["expansion.factor=2", "expansion.batch_size=4", "expansion.shard_size=5", "logger=none", *overrides]
        job, _ = standin_job(compose_once("expand", [*given, f"expansion.format={storage}"]), folder / "made", 4)
        job.run("test")

    return make


def as_dataset(folder: Path) -> None:
    """As `dataset=expanded` of any command."""
    splits = load("expanded", folder.parent, root=str(folder / "made"), validation_fraction=0, test_fraction=0)
    readable(splits.train, "training")


def beside_real_images(folder: Path) -> None:
    """As `train.expanded` and `measure.expanded`."""
    images = read_expanded(folder / "made")
    for position in range(len(images)):
        images.image(position)


def exported(folder: Path) -> None:
    config = compose_once("export", [])
    config.export.source, config.export.output_dir = str(folder / "made"), str(folder.parent / "copy")
    config.paths.output_dir = str(folder.parent / "outputs")
    (folder.parent / "run").mkdir(exist_ok=True)
    export(config, folder.parent / "run")


def resumed(folder: Path) -> None:
    given = ["expansion.factor=2", "expansion.batch_size=4", "expansion.shard_size=5", "logger=none"]
    job, _ = standin_job(compose_once("expand", [*given, "expansion.format=imagefolder"]), folder / "made", 4)
    job.run("test")
    say_failures(folder / "made")


FOLDERS, TARS, TABLES = expanded("imagefolder"), expanded("webdataset"), expanded("parquet")
READS = {"dataset": as_dataset, "beside": beside_real_images, "export": exported}
SHARD = "made/data/0-of-1-00000"
UNSEEN = ("NUL", "Latin-1")  # parquet files have no checksums
IMAGE = "made/b.c/sub.dir%2Fimage 1_val~_.v1.jpg__0000.png"


def listed_failures(folder: Path) -> None:
    FOLDERS(folder)
    unread = [Unreadable("x.png", "b.c", "it is empty")]
    list_failures(folder / "made", unread)


READERS = {
    f"{file} in {what}": Reader(FOLDERS, f"made/{file}", read)
    for file in ("manifest.json", "classes.json", "metadata.parquet")
    for what, read in READS.items()
} | {
    "manifest.json in resume": Reader(FOLDERS, "made/manifest.json", resumed, ("missing",)),
    "metadata.parquet in resume": Reader(FOLDERS, "made/metadata.parquet", resumed, ("missing",)),
    "image": Reader(FOLDERS, IMAGE, beside_real_images, ("picture",)),
    "image in dataset": Reader(FOLDERS, IMAGE, as_dataset, ("picture",), "b.c/sub.dir/image 1_val_.v1.jpg__0000.png"),
    "image in export": Reader(FOLDERS, IMAGE, exported, ("picture", "cut short", *UNSEEN)),  # not decoded
    "tar": Reader(TARS, f"{SHARD}.tar", beside_real_images),
    "tar in export": Reader(TARS, f"{SHARD}.tar", exported),
    "parquet": Reader(TABLES, f"{SHARD}.parquet", beside_real_images, UNSEEN),
    "parquet in export": Reader(TABLES, f"{SHARD}.parquet", exported, UNSEEN),
    "failures.parquet": Reader(listed_failures, "made/failures.parquet", resumed, ("missing",)),
}


@pytest.mark.parametrize("name", READERS)
def test_a_whole_expansion_is_read(name: str, tmp_path: Path) -> None:
    whole(READERS[name], tmp_path / "given")
    READERS[name].read(tmp_path / "given")


@pytest.mark.parametrize(("name", "damage"), cases(READERS))
def test_a_broken_file_of_an_expansion_is_one_line_with_its_path_and_the_cause(
    name: str, damage: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    check_said(READERS[name], damage, tmp_path, capsys)
