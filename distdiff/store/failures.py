"""The list of failures, `failures.parquet`: unreadable sources and failed samples.

Failed samples are first listed in journals.
"""

import os
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as parquet

from distdiff.console.progress import console
from distdiff.data.images import Unreadable
from distdiff.store.contents import Contents
from distdiff.store.journal import read_rows
from distdiff.store.tables import read_table

FAILURES, FAILURE_JOURNALS = "failures.parquet", ".failures-*.jsonl"
READ, SAMPLE = "read", "sample"
SCHEMA = pa.schema(
    [
        ("source", pa.string()),
        ("class_name", pa.string()),
        ("file_name", pa.string()),  # the image that was not made; null if the source could not be read
        ("copy", pa.int64()),
        ("stage", pa.string()),
        ("reason", pa.string()),
    ]
)


def read_failures(directory: Path) -> dict[str, dict[str, Any]]:
    """The rows of failed samples, by the file name of the missing image.

    A resumed run skips these samples, because they would fail again. To have these samples tried again, delete
    `failures.parquet`.
    """
    listed = directory / FAILURES
    rows = read_table(listed, ("file_name", "stage")).to_pylist() if os.path.lexists(listed) else []
    for journal in sorted(directory.glob(FAILURE_JOURNALS)):
        rows += read_rows(journal)
    return {row["file_name"]: row for row in rows if row["stage"] == SAMPLE}


def num_failed(directory: Path, contents: Contents) -> int:
    """How many images of `contents` failed."""
    failed = read_failures(directory)
    return sum(name in failed for name in contents.file_names()) if failed else 0


def list_failures(directory: Path, unreadable: Iterable[Unreadable], journals: str | None = None) -> int:
    """Rewrites `failures.parquet` with all failures, removes the journals, and returns the number of rows in the file.

    `journals` is the file pattern of the journals to remove. If `journals` is None, all journals are removed. Only one
    process at a time may call this function. If nothing failed, no file is left.
    """
    merged = list(directory.glob(journals or FAILURE_JOURNALS))
    rows = [
        {"source": image.key, "class_name": image.class_name, "stage": READ, "reason": image.reason}
        for image in unreadable
    ]
    samples = read_failures(directory).values()
    rows += sorted(samples, key=lambda row: (row["copy"], row["file_name"]))
    if rows:
        aside = directory / f".{FAILURES}.part"
        parquet.write_table(pa.Table.from_pylist(rows, schema=SCHEMA), aside)
        os.replace(aside, directory / FAILURES)
    else:
        (directory / FAILURES).unlink(missing_ok=True)
    for journal in merged:
        journal.unlink(missing_ok=True)
    return len(rows)


def say_failures(directory: Path) -> None:
    """If `failures.parquet` exists, prints one line for each kind of failure in it, with the most common reasons."""
    if not os.path.lexists(directory / FAILURES):
        return
    rows = read_table(directory / FAILURES, ("stage", "reason")).to_pylist()
    for stage, what in ((READ, "source images could not be read"), (SAMPLE, "images failed")):
        reasons = Counter(row["reason"] for row in rows if row["stage"] == stage)
        if reasons:
            common = "; ".join(f"{count:,} x {reason}" for reason, count in reasons.most_common(3))
            more = "; …" if len(reasons) > 3 else ""
            console.print(f"{reasons.total():,} {what} ({common}{more}), see {directory / FAILURES}")
