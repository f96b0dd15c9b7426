"""A method whose copies depend on each other: made together, on one rank, and again as a whole after a stop."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest
import torch
from conftest import compose
from standin import Killed, StandIn

from distdiff.data.images import LabelledImages
from distdiff.errors import UserError
from distdiff.expansion.job import ExpansionJob
from distdiff.expansion.memory import WithinMemory
from distdiff.expansion.plan import ExpansionPlan
from distdiff.methods.base import Method
from distdiff.methods.item import WorkItem
from distdiff.methods.synthesis import Synthesized
from distdiff.store.comparison import content_differences
from distdiff.store.formats.imagefolder import ImageFolder
from distdiff.store.shares import Share

SOURCES, FACTOR, GROUP = 3, 6, 4


class Together(StandIn):
    """Each image is its own noise and that of all others of its batch."""

    def __init__(self) -> None:
        super().__init__()
        self.batches: list[list[str]] = []

    def forward(self, items: Sequence[WorkItem]) -> Synthesized:
        made = super().forward(items)
        self.batches.append([item.file_name for item in items])
        return Synthesized(
            made.images / 2 + made.images.mean(0, keepdim=True) / 2, made.columns | {"angle": [0.5] * len(items)}
        )


class InGroups(Method):
    columns = {"angle": float, "parts": list[str]}  # noqa: RUF012

    def __init__(self, group_size: int = GROUP) -> None:
        self.group_size = group_size

    def synthesizer(self) -> Together:
        return Together()


def images() -> LabelledImages:
    labels = np.arange(SOURCES) % 2
    return LabelledImages(
        "any", ("cat", "dog"), labels, tuple(f"{i}.png" for i in range(SOURCES)), read=None, indices=np.arange(SOURCES)
    )


@pytest.fixture
def job(tmp_path: Path):
    def make(folder: str, *overrides: str) -> tuple[ExpansionJob, Together]:
        config = compose("expand", [f"expansion.factor={FACTOR}", "expansion.batch_size=2", "logger=none", *overrides])
        synthesizer, method = Together(), InGroups()
        made = ExpansionJob(
            "groups", 0, images(), {"seed": 0}, lambda title: synthesizer, tmp_path / folder, config, method
        )
        made.claim()
        return made, synthesizer

    return make


def test_copies_of_one_source_share_a_batch_of_at_most_the_groups_size(job) -> None:
    made, synthesizer = job("made")
    made.run("test")
    assert sorted(map(len, synthesizer.batches)) == [2] * SOURCES + [GROUP] * SOURCES
    for batch in synthesizer.batches:
        assert len({name.partition("__")[0] for name in batch}) == 1
    rows = pyarrow.parquet.read_table(made.path / "metadata.parquet").to_pylist()
    of = {row["file_name"]: row["companions"] for row in rows}
    assert all(of[name] == batch for batch in synthesizer.batches for name in batch)


def test_declared_columns_are_typed_also_without_a_value(job) -> None:
    made, _ = job("made")
    made.run("test")
    schema = pyarrow.parquet.read_schema(made.path / "metadata.parquet")
    assert str(schema.field("angle").type) == "double"
    assert str(schema.field("parts").type).startswith("list<")


def test_a_group_that_was_torn_by_a_stop_is_made_again_as_a_whole(job, monkeypatch) -> None:
    job("whole")[0].run("test")
    write = ImageFolder.write

    def torn(self, batch):
        if len(batch) == GROUP and not torn.done:
            torn.done = True
            write(self, batch)
            (self.directory / batch[1][0]["file_name"]).unlink()  # as if its rename had not come
            raise Killed
        return write(self, batch)

    torn.done = False
    with monkeypatch.context() as patch:
        patch.setattr(ImageFolder, "write", torn)
        with pytest.raises(Killed):
            job("torn")[0].run("test")
    rest, synthesizer = job("torn")
    rest.run("test")
    assert sorted(map(len, synthesizer.batches)) == [2] * SOURCES + [GROUP] * SOURCES
    assert content_differences(rest.path, rest.path.with_name("whole")) == []


def test_a_larger_factor_adds_groups_and_changes_none(job) -> None:
    made, _ = job("made")
    made.run("test")
    before = {path: path.read_bytes() for path in made.path.glob("*/*.png")}
    grown, synthesizer = job("made", "expansion.factor=8")
    grown.run("test")
    assert sorted(map(len, synthesizer.batches)) == [2] * SOURCES
    assert {path: path.read_bytes() for path in before} == before


def test_copies_that_are_made_together_are_in_one_share(job) -> None:
    plan = ExpansionPlan(images(), FACTOR, 0.5, 0, method=InGroups())
    indices = np.arange(len(plan))
    parts = [Share(split, 2, rank, 2).of(indices, plan.source_numbers(indices)) for split in (0, 1) for rank in (0, 1)]
    assert sorted(np.concatenate(parts)) == indices.tolist()
    sources = [{plan[int(i)].source for i in part} for part in parts]
    assert sum(map(len, sources)) == SOURCES
    lacking = [job("parts", f"expansion.split={split}", "expansion.total_split=2")[0].run("test") for split in (0, 1)]
    assert lacking[1] == 0 < lacking[0]


def test_a_group_is_never_divided_for_want_of_memory() -> None:
    class Huge(StandIn):
        def forward(self, items):
            raise torch.OutOfMemoryError

    with pytest.raises(
        UserError, match=r"out of memory with 4 images that are made together: set a smaller method.group"
    ):
        WithinMemory(Huge(), together=True)([None] * 4)
