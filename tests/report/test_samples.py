"""The samples of a report: sources, generated images, and the real training images nearest to these."""

from pathlib import Path

import numpy as np
import pytest
from conftest import compose_once
from html_pages import Page
from PIL import Image
from standin import standin_job_of
from study_results import results

from distdiff.data.images import LabelledImages
from distdiff.metrics.looks import Looks
from distdiff.report.html import write_report
from distdiff.report.page import embedded
from distdiff.report.samples import COPIES, MAX_CLASSES, MAX_ROWS, Samples, collect
from distdiff.store.reading import read_expanded
from distdiff.study.results import StudyResults

SIZE = 32


def pictures(names: tuple[str, ...], each: int) -> LabelledImages:
    """So many images of each class, every one of a colour of its own."""
    number = len(names) * each

    def read(index: int) -> Image.Image:
        return Image.new("RGB", (SIZE, SIZE), (index % 256, 100, index // 256))

    labels = np.repeat(np.arange(len(names)), each)
    return LabelledImages("any", names, labels, tuple(f"{i}.png" for i in range(number)), read, np.arange(number))


@pytest.fixture
def expansion(tmp_path: Path):
    """The directory of an expansion of `pictures`, made by a stand-in for a generator."""

    def make(originals: LabelledImages) -> str:
        given = ["expansion.factor=3", "expansion.batch_size=64", "logger=none"]
        job, _ = standin_job_of(originals, compose_once("expand", given), tmp_path / "expanded")
        job.run("test")
        return str(job.path)

    return make


def study(directory: str | None, *names: str) -> StudyResults:
    found = results({name: [0.5, 0.6] for name in ("original", *names)}, names[-1])
    for row in found.rows[1:]:
        for run in row.runs:
            run.expanded = directory
    return found


class Looker:
    """Sees the last class in each image, and the real images in turn as the nearest ones."""

    def __init__(self, images: LabelledImages) -> None:
        self.images = images
        self.seen: list[LabelledImages] = []

    def look(self, images: LabelledImages) -> Looks:
        self.seen.append(images)
        count = np.arange(len(images))
        return Looks(np.full(len(images), len(images.class_names) - 1), count % len(self.images), count / 10)


def test_each_shown_image_has_its_nearest_real_image_and_the_distance(expansion, tmp_path: Path) -> None:
    originals = pictures(("cat", "dog"), 2)
    directory = expansion(originals)
    looker = Looker(originals)
    found = collect(study(directory, "none"), originals, SIZE, "crop", looker)
    assert found.titles == ["source", "none, copy 0", "none, copy 1"]
    assert found.class_names == ["cat", "dog"]
    made = read_expanded(directory)
    pixels = {image.tobytes() for image in map(made.image, range(len(made)))}
    samples = [sample for _, line in found.lines for sample in line]
    assert all(sample.image.tobytes() in pixels for sample in samples)
    assert [sample.entry["source"] for sample in samples] == ["0.png", "2.png"] * 2
    assert [sample.nearest.getpixel((0, 0))[0] for sample in samples] == [0, 1, 2, 3]
    assert [sample.nearest_class for sample in samples] == ["cat", "cat", "dog", "dog"]
    assert [sample.distance for sample in samples] == [0.0, 0.1, 0.2, 0.3]
    (seen,) = looker.seen
    assert [seen.class_names[label] for label in seen.labels] == ["cat", "dog"] * 2
    assert seen.square(1, SIZE, "crop").tobytes() == samples[1].image.tobytes()

    write_report(study(directory, "none"), compose_once("run", []), found, tmp_path / "report.html")
    page = Page((tmp_path / "report.html").read_text())
    alts = [image["alt"] for image in page.all("img")]
    assert alts[:4] == [
        "source of class cat",
        "source of class dog",
        "none, copy 0, class cat",
        "nearest real image, class cat",
    ]
    assert len(alts) == 2 + 2 * 4
    assert page.all("img")[3]["src"] == embedded(originals.square(0, SIZE, "crop"))
    assert page.text.count("judge: dog") == 2  # of the two images of cats
    assert page.addresses() == []


def test_samples_are_shown_without_a_judge_too(expansion, tmp_path: Path) -> None:
    originals = pictures(("cat", "dog"), 2)
    found = collect(study(expansion(originals), "none"), originals, SIZE, "crop")
    assert not found.has_looks
    found.draw(tmp_path / "samples.png")
    assert Image.open(tmp_path / "samples.png").height > 3 * 64
    write_report(study(None, "none"), compose_once("run", []), found, tmp_path / "report.html")
    page = Page((tmp_path / "report.html").read_text())
    assert len(page.all("img")) == 2 + 4
    assert "nearest" not in page.text


def test_rows_whose_images_are_not_on_this_machine_are_left_out(tmp_path: Path) -> None:
    """As runs that a `study.table` from elsewhere holds."""
    originals = pictures(("cat", "dog"), 1)
    looker = Looker(originals)
    found = collect(study(None, "none", "direct"), originals, SIZE, "crop", looker)
    assert (found.titles, found.total_rows, looker.seen) == (["source"], 0, [])
    found.draw(tmp_path / "samples.png")
    write_report(study(None, "none"), compose_once("run", []), found, tmp_path / "report.html")
    assert len(Page((tmp_path / "report.html").read_text()).all("img")) == 2


def test_of_many_classes_and_rows_the_first_are_shown_and_the_rule_is_stated(expansion, tmp_path: Path) -> None:
    names = tuple(f"class <{place}>" for place in range(200))
    originals = pictures(names, 1)
    directory = Path(expansion(originals))
    found = study(str(directory), *(f"row {place}" for place in range(200)))
    for row in found.rows[1:]:  # one expansion in the place of two hundred
        place = tmp_path / row.method
        place.symlink_to(directory)
        row.runs[0].expanded = str(place)
    samples = collect(found, originals, SIZE, "crop", Looker(originals))
    assert len(samples.class_names) == MAX_CLASSES
    assert len(samples.lines) == MAX_ROWS * COPIES
    assert samples.titles[-1] == "row 199, copy 1"  # the row that the job's keys choose
    assert samples.rule.endswith("Shown are the first 10 of 200 classes and 12 of 200 rows with images of its own.")
    write_report(found, compose_once("run", []), samples, tmp_path / "report.html")
    assert (tmp_path / "report.html").stat().st_size < 4_000_000
    assert "first 10 of 200 classes" in (tmp_path / "report.html").read_text()


def test_a_class_without_images_takes_no_column() -> None:
    originals = pictures(("cat", "dog"), 2).select([2, 3])
    found = collect(study(None, "none"), originals, SIZE, "crop")
    assert found.class_names == ["dog"]
    assert [image.getpixel((0, 0))[0] for image in found.sources] == [2]


def test_rules_say_nothing_of_what_is_complete() -> None:
    whole = Samples(["a"], [], [], SIZE, total_classes=1, shown_rows=2, total_rows=2)
    assert (
        whole.rule
        == "Of the first data seed: each class's first source, and the first 2 images that each row made of it."
    )


def test_of_images_without_a_source_the_first_of_each_number_stands_under_its_class(monkeypatch) -> None:
    """Several images of a class have the same number, as many as it has real images, and the rule says what they are of."""
    made = [
        {"class_name": name, "copy": copy, "source": None, "sources": [], "picture": f"{name}{copy}{number}"}
        for copy in range(2)
        for name in ("cat", "dog")
        for number in range(3)
    ]

    class Directory:
        def __init__(self, path: Path) -> None: ...

        def images(self, rows: list) -> object:
            return lambda index: rows[index]["picture"]

    monkeypatch.setattr("distdiff.report.samples.ExpandedDirectory", Directory)
    monkeypatch.setattr("distdiff.report.samples._made", lambda *_: made)
    found = collect(study("somewhere", "text2img"), pictures(("cat", "dog"), 3), SIZE, "crop")
    pictured = [[sample.image for sample in line] for _, line in found.lines]
    assert pictured == [["cat00", "dog00"], ["cat10", "dog10"]]
    assert "Images that were made of no source stand under their class." in found.rule
