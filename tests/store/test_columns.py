"""Columns that a method brings are stored with their types in every format, or refused at once."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import datasets
import pyarrow.parquet
import pytest
from conftest import compose
from standin import StandIn, interrupted
from stored import FACTOR, FORMATS, SOURCES, loaded, standin_jobs

from distdiff.commands.export import export
from distdiff.errors import UserError
from distdiff.expansion.job import ExpansionJob
from distdiff.store.directory import ExpandedDirectory
from distdiff.store.filtering import RowFilter
from distdiff.store.reading import read_expanded


@pytest.fixture
def job(tmp_path: Path) -> Callable[..., tuple[ExpansionJob, StandIn]]:
    return standin_jobs(tmp_path)


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
        ("pair", {"a": 1}, r"column 'pair' cannot hold {'a': 1}: allowed are text"),
        ("parts", [[1], [2]], r"column 'parts' cannot hold \[1\]: allowed are text"),
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
