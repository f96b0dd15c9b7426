"""Selections: candidates are made once, chosen class by class, and a stop at any moment changes nothing."""

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import datasets
import numpy as np
import pyarrow.parquet
import pytest
import torch
from conftest import compose
from standin import Killed, StandIn

from distdiff.data.images import LabelledImages
from distdiff.data.pixels import to_tensor
from distdiff.data.reading.decoding import read_image
from distdiff.expansion.selecting import SelectingJob
from distdiff.prototypes.exemplars import Exemplars
from distdiff.selection.base import Candidates, Selection
from distdiff.selection.consistency import Consistency
from distdiff.selection.energy import LowestEnergy
from distdiff.store.candidates import CandidateStore
from distdiff.store.columns import METADATA
from distdiff.store.comparison import content_differences
from distdiff.store.directory import ExpandedDirectory
from distdiff.store.formats.imagefolder import ImageFolder
from distdiff.store.reading import read_expanded

SIZES, FACTOR = (3, 5), 2
FORMATS = ("imagefolder", "webdataset", "parquet")


class ByBrightness:
    """Stands in for φ: an image's energy is its mean brightness; the guide agrees where its copy's number is even."""

    def __init__(self) -> None:
        self.seen: list[list[str]] = []

    def candidates(self, label: int, items, rows, read) -> Candidates:
        import io

        self.seen.append([item.file_name for item in items])
        pixels = [to_tensor(read_image(io.BytesIO(read(i)), item.file_name)) for i, item in enumerate(items)]
        energies = torch.stack([image.mean() for image in pixels])
        agree = torch.tensor([item.copy % 2 == 0 for item in items])
        probabilities = torch.full((len(items), len(SIZES)), 0.5)
        probabilities[:, label] = torch.where(agree, 0.9, 0.3 + energies / 10)
        features = torch.nn.functional.normalize(torch.ones(len(items), 2), dim=-1)
        real = Exemplars(features[:1], np.array([label]), ("0.png",))
        return Candidates(label, rows, features, real.features, energies, probabilities, real, [], list)


def images() -> LabelledImages:
    labels = np.repeat(np.arange(len(SIZES)), SIZES)
    keys = tuple(f"{i}.png" for i in range(len(labels)))
    return LabelledImages("any", ("cat", "dog"), labels, keys, read=None, indices=np.arange(len(labels)))


@pytest.fixture
def job(tmp_path: Path) -> Callable[..., tuple[SelectingJob, StandIn, ByBrightness]]:
    def make(folder: str, selection: Selection | None = None, *overrides: str):
        given = [f"expansion.factor={FACTOR}", "expansion.batch_size=4", "expansion.shard_size=5", "logger=none"]
        synthesizer, examiner = StandIn(), ByBrightness()
        made = SelectingJob(
            "none+energy",
            0,
            images(),
            {"seed": 0},
            lambda title: synthesizer,
            tmp_path / folder,
            compose("expand", [*given, *overrides]),
            selection=selection or LowestEnergy(ratio=2),
            examiner=lambda title: examiner,
        )
        made.claim()
        return made, synthesizer, examiner

    return make


def kept(path: Path) -> set[str]:
    return set(read_expanded(path).keys)


def brightness(path: Path, names) -> dict[str, float]:
    store = CandidateStore(ExpandedDirectory(path))
    rows = [(store.directory.rows() | store.rows())[name] for name in names]
    import io

    read = store.reader(rows)
    return {
        row["file_name"]: float(to_tensor(read_image(io.BytesIO(read(i)), row["file_name"])).mean())
        for i, row in enumerate(rows)
    }


@pytest.mark.parametrize("storage", FORMATS)
def test_of_each_class_the_lowest_are_kept_and_the_others_stay_beside(job, storage: str) -> None:
    made, synthesizer, _ = job("made", None, f"expansion.format={storage}")
    assert made.run("test") == 0
    assert len(synthesizer.made) == len(set(synthesizer.made)) == 2 * FACTOR * sum(SIZES)
    own = kept(made.path)
    others = set(pyarrow.parquet.read_table(made.path / ".candidates/candidates.parquet")["file_name"].to_pylist())
    assert own | others == set(synthesizer.made)
    assert not own & others
    for label, name in enumerate(("cat", "dog")):
        shades = brightness(made.path, [n for n in synthesizer.made if n.startswith(name)])
        expected = sorted(shades, key=shades.get)[: FACTOR * SIZES[label]]
        assert {n for n in own if n.startswith(name)} == set(expected)
    place = {"data_dir": str(made.path)} if storage == "imagefolder" else {}
    loaded = datasets.load_dataset("imagefolder" if place else str(made.path), split="train", **place)
    assert len(loaded) == FACTOR * sum(SIZES)
    counts = ExpandedDirectory(made.path).manifest()["counts"]
    assert (counts["images"], counts["candidates"], counts["factor"]) == (16, 16, FACTOR)
    again, nothing, _ = job("made", None, f"expansion.format={storage}")
    assert (again.run("test"), nothing.made) == (0, [])


def stop_after(monkeypatch, calls: int) -> None:
    """A process that is killed after so many writes of images, of manifests or of choices: nothing is closed."""
    done: list[int] = []

    def counted(original):
        def write(*arguments, **keywords):
            if len(done) == calls:
                raise Killed
            done.append(1)
            return original(*arguments, **keywords)

        return write

    for owner, name in (
        (ImageFolder, "write"),
        (CandidateStore, "note_kept"),
        (CandidateStore, "remove"),
        (CandidateStore, "finish"),
        (ExpandedDirectory, "clear"),
        (ExpandedDirectory, "finish"),
    ):
        monkeypatch.setattr(owner, name, counted(getattr(owner, name)))


@pytest.mark.parametrize("storage", FORMATS)
def test_a_stop_at_any_moment_changes_nothing(job, monkeypatch, storage: str) -> None:
    """Of candidates, of choosing, of moving; then the same on the way to a larger factor."""
    given = (None, f"expansion.format={storage}")
    for factor in (FACTOR, FACTOR + 1):
        job("whole", *given, f"expansion.factor={factor}")[0].run("test")
        made: list[str] = []
        for calls in range(100):
            stopped, synthesizer, _ = job("stopped", *given, f"expansion.factor={factor}")
            with monkeypatch.context() as patch:
                stop_after(patch, calls % 4)
                try:
                    assert stopped.run("test") == 0
                except Killed:
                    continue
                finally:
                    made += synthesizer.made
            break
        assert calls > 5
        assert content_differences(stopped.path, stopped.path.with_name("whole")) == []


def test_a_chosen_image_that_was_lost_while_images_are_moved_is_made_again(job) -> None:
    whole, _, _ = job("whole")
    whole.run("test")
    made, _, _ = job("made")
    made.run("test")
    manifest = json.loads((made.path / "manifest.json").read_text())
    (made.path / "manifest.json").write_text(json.dumps(manifest | {"complete": False}))
    lost = sorted(made.path.glob("[!.]*/*.png"))[3]
    lost.unlink()
    again, synthesizer, _ = job("made")
    assert again.run("test") == 0
    assert synthesizer.made == [lost.relative_to(made.path).as_posix()]
    assert content_differences(made.path, whole.path) == []


def test_a_larger_factor_selects_anew_and_makes_no_candidate_again(job, capsys) -> None:
    made, synthesizer, _ = job("grown")
    made.run("test")
    first = kept(made.path)
    grown, more, _ = job("grown", None, "expansion.factor=4")
    grown.run("test")
    assert "selecting anew for expansion.factor=4: the factor was 2 before" in capsys.readouterr().out
    assert not set(more.made) & set(synthesizer.made)
    scratch, _, _ = job("scratch", None, "expansion.factor=4")
    scratch.run("test")
    assert content_differences(grown.path, scratch.path) == []
    assert kept(made.path) != first
    back, nothing, _ = job("grown")
    back.run("test")
    assert (kept(back.path), nothing.made) == (first, [])


def test_candidates_are_deleted_where_they_are_not_to_be_kept(job) -> None:
    made, _, _ = job("made", LowestEnergy(ratio=2, keep_candidates=False))
    made.run("test")
    assert not (made.path / ".candidates").exists()
    whole, _, _ = job("whole")
    whole.run("test")
    assert kept(made.path) == kept(whole.path)
    again, nothing, _ = job("made", LowestEnergy(ratio=2, keep_candidates=False))
    assert (again.run("test"), nothing.made) == (0, [])


class FewCats(ByBrightness):
    """The guide knows cats only among copies of large numbers."""

    def candidates(self, label: int, items, rows, read) -> Candidates:
        found = super().candidates(label, items, rows, read)
        if label == 0:
            agree = torch.tensor([item.copy >= 4 for item in items])
            found.probabilities[:, 0] = torch.where(agree, 0.9, 0.1)
        return found


def test_more_candidates_are_made_of_those_classes_that_lack_good_ones(job) -> None:
    made, synthesizer, _ = job("made", Consistency(ratio=2, max_ratio=4))
    made.examiner = lambda title: FewCats()
    made.run("test")
    count = Counter(name.split("/")[0] for name in synthesizer.made)
    assert count == {"cat": 4 * FACTOR * 3, "dog": 2 * FACTOR * 5}
    assert all(int(name[-8:-4]) >= 4 for name in kept(made.path) if name.startswith("cat"))
    assert Counter(name.split("/")[0] for name in kept(made.path)) == {"cat": FACTOR * 3, "dog": FACTOR * 5}


def test_where_too_few_are_good_the_most_probable_fill_up(job) -> None:
    made, synthesizer, _ = job("made", Consistency(ratio=2))
    made.examiner = lambda title: FewCats()  # none of the cats' candidates
    made.run("test")
    assert Counter(name.split("/")[0] for name in kept(made.path)) == {"cat": FACTOR * 3, "dog": FACTOR * 5}
    assert len(synthesizer.made) == 2 * FACTOR * 8


def test_splits_keep_what_one_process_keeps_and_the_last_one_chooses(job) -> None:
    whole, _, _ = job("whole", Consistency(ratio=2, max_ratio=4))
    whole.examiner = lambda title: FewCats()
    whole.run("test")
    lacking = []
    for split in (0, 1):
        part, _, _ = job(
            "parts", Consistency(ratio=2, max_ratio=4), f"expansion.split={split}", "expansion.total_split=2"
        )
        part.examiner = lambda title: FewCats()
        lacking.append(part.run("test"))
    assert lacking == [FACTOR * 8, 0]
    assert content_differences(part.path, whole.path) == []


def test_failed_candidates_are_not_chosen_and_others_take_their_place(job) -> None:
    class Failing(StandIn):
        def forward(self, items):
            done = super().forward(items)
            return replace(done, failures={0: "it came out badly"})

    made, _, _ = job("made", None, "expansion.max_failures=null")
    made.synthesizer = lambda title: Failing()
    made.run("test")
    rows = pyarrow.parquet.read_table(made.path / METADATA).to_pylist()
    failed = set(pyarrow.parquet.read_table(made.path / "failures.parquet")["file_name"].to_pylist())
    assert len(rows) == FACTOR * 8
    assert failed
    assert not failed & {row["file_name"] for row in rows}


def test_a_process_that_finds_the_choice_made_leaves_no_lock_behind(job, monkeypatch) -> None:
    """Two splits that end at once: the second waits, and finds that the first has finished the directory."""
    whole, _, _ = job("whole")
    whole.run("test")
    late, synthesizer, _ = job("made")
    first, _, _ = job("made")
    done, asked = SelectingJob.is_done, []

    def too_early(self) -> bool:
        asked.append(self)
        if self is late and len(asked) == 1:
            first.run("test")
            return False  # what it saw before
        return done(self)

    monkeypatch.setattr(SelectingJob, "is_done", too_early)
    assert late.run("test") == 0
    assert synthesizer.made == []
    assert content_differences(late.path, whole.path) == []
