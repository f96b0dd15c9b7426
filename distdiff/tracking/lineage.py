"""What runs make and use (expanded datasets, models) as W&B artifacts that refer to files on this disk."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from lightning.pytorch.loggers import Logger

from distdiff.tracking.loggers import dashboard_of

DATASET, MODEL = "dataset", "model"
MOST_CHARACTERS = 128  # in the name of an artifact
MOST_HASHED = 64 * 2**20  # bytes; a larger file is told apart by its place alone, since reading it takes seconds


@dataclass(frozen=True)
class Stored:
    """Something in `folder` that runs make and use.

    The artifact refers to `files`, which have to be few: W&B reads them. It has `facts` as its metadata. Two artifacts are
    one version of the same if they have the same `name` and their files the same contents.
    """

    kind: Literal["dataset", "model"]
    name: str
    folder: Path
    files: tuple[Path, ...]
    facts: Mapping[str, Any] = field(default_factory=dict)


def log_made(logger: Logger | None, *stored: Stored) -> None:
    """Logs what the run itself has made as its outputs, if the logger knows lineage.

    What the run has found, because an earlier run made it, is an input: `log_used`.
    """
    _log(logger, stored, used=False)


def log_used(logger: Logger | None, *stored: Stored) -> None:
    """Logs what the run uses as its inputs, if the logger knows lineage."""
    _log(logger, stored, used=True)


def _log(logger: Logger | None, stored: tuple[Stored, ...], used: bool) -> None:
    dashboard = dashboard_of(logger)
    if dashboard is None or not stored or dashboard.experiment.disabled:
        return
    import wandb

    run, word = dashboard.experiment, "uses" if used else "makes"
    for item in stored:
        with dashboard.adding(f"the {item.kind} {item.name}"):
            facts = {"directory": str(item.folder.absolute()), **item.facts}
            artifact = wandb.Artifact(_name(item.name), item.kind, metadata=facts)
            if item.kind in dashboard.uploads:
                artifact.add_dir(str(item.folder))
            else:
                for file in item.files:
                    small = file.stat().st_size <= MOST_HASHED
                    artifact.add_reference(file.absolute().as_uri(), checksum=small)
            if used:  # `use_artifact` refuses to work offline, and waits for the server online
                run._log_artifact(artifact, is_user_created=True, use_after_commit=True)
            else:
                run.log_artifact(artifact)
    for kind in (DATASET, MODEL):
        if places := [str(item.folder.absolute()) for item in stored if item.kind == kind]:
            dashboard.log_columns({f"{word}.{kind}": places})


def _name(name: str) -> str:
    return re.sub(r"[^\w.-]+", "-", name, flags=re.ASCII)[-MOST_CHARACTERS:]
