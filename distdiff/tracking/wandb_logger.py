"""The loggers of W&B runs. Nothing that W&B does or fails to do stops a job."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import wandb
from lightning.pytorch.loggers import WandbLogger
from omegaconf import DictConfig, OmegaConf
from PIL import Image
from wandb.env import DATA_DIR
from wandb.sdk.mailbox import MailboxClosedError
from wandb.sdk.wandb_run import Run

from distdiff.console.output import console
from distdiff.errors import first_line
from distdiff.tracking.columns import columns
from distdiff.tracking.sections import AXES, RESULT, ROW_STEP, charted, define_chart, kept, section_of

MOST_POINTS = 200  # of a line; W&B draws at most 10,000 points in a chart
CONFIGURATION = "configuration.yaml"  # among the files of the run
Picture = Path | Image.Image


@contextmanager
def lasting(what: str) -> Iterator[None]:
    """Ends the block if W&B fails in it, with one line that says what the dashboard lacks.

    Says nothing if W&B's service process is gone, because the end of the run says so once. The block holds calls of W&B
    alone, so that no other error is hidden.
    """
    try:
        yield
    except (ConnectionError, MailboxClosedError):
        pass
    except Exception as error:  # of many types, in W&B, in its service process, and from a full disk
        console.print(f"W&B      the dashboard lacks {what}: {first_line(error)}")


@dataclass
class Counts:
    """What the stages of a run have counted so far, by section: the place at which the next stage's charts begin.

    `charts` are the keys that are charted for all rows of a study together. `curves` has the first curve of each row, by
    chart and row.
    """

    ends: dict[str, int] = field(default_factory=dict)
    charts: set[str] = field(default_factory=set)
    curves: dict[str, dict[str, "Curve"]] = field(default_factory=dict)


@dataclass
class Curve:
    """The points (x, y) that the stage `place` has logged for one chart."""

    place: str
    points: list[tuple[float, float]] = field(default_factory=list)


class LastingWandbLogger(WandbLogger):
    """The logger of a W&B run. `finish` says how to upload the run if W&B's service process is gone.

    `uploads` says which artifacts are uploaded ("model", "dataset") rather than only referred to.
    """

    def __init__(self, run: Run, save_dir: Path, uploads: Sequence[str] = ()) -> None:
        super().__init__(experiment=run, save_dir=save_dir)
        if not run.disabled:
            _never_wait_for_artifacts(run)
        self.uploads = tuple(uploads)
        self.counts = Counts()

    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        with suppress(ConnectionError):
            super().log_metrics(metrics, step)

    def log_configuration(self, config: DictConfig, more: Mapping[str, Any]) -> None:
        """Logs the configuration as flat columns (`columns.py`) with `more`, and all of it as a file of the run."""
        self.log_columns(columns(config) | dict(more))
        with lasting("the configuration"):
            if not self.experiment.disabled:
                file = Path(self.experiment.dir, CONFIGURATION)
                file.write_text(OmegaConf.to_yaml(config, resolve=True), encoding="utf-8")

    def log_columns(self, values: Mapping[str, Any]) -> None:
        """Logs columns of the table of runs. A key that a W&B sweep has set keeps its value."""
        with lasting("the columns of the configuration"):
            self.experiment.config.update(dict(values), allow_val_change=True)

    def keep(self, row: str, values: Mapping[str, float], seeds: Mapping[str, int]) -> None:
        """Logs the figures of one run of a study's row under hidden keys."""
        with suppress(ConnectionError):
            self.experiment.log(kept(row, values) | kept(row, seeds))

    def summarize(self, values: Mapping[str, Any]) -> None:
        """Sets final values of the run."""
        with suppress(ConnectionError):
            self.experiment.summary.update(dict(values))

    def show_table(self, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Shows rows, which all have the same columns, as a table of the section `Result`. Cells may be pictures."""
        if not rows:
            return

        def table() -> wandb.Table:
            made = wandb.Table(columns=list(rows[0]), allow_mixed_types=True)
            for row in rows:
                made.add_data(*(wandb.Image(cell) if isinstance(cell, Image.Image) else cell for cell in row.values()))
            return made

        self._show(f"{RESULT}/{name}", table, f"the table {name}")

    def show_bars(self, name: str, title: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Shows a chart of bars in the section `Result`: the first column of `rows` are the labels, the second the values."""
        if rows:
            label, value, *_ = rows[0]

            def chart() -> Any:
                table = wandb.Table(columns=list(rows[0]), data=[list(row.values()) for row in rows])
                return wandb.plot.bar(table, label, value, title=title)

            self._show_chart(f"{RESULT}/{name}", chart)

    def show_lines(self, key: str, title: str, axis: str, lines: Mapping[str, Sequence[tuple[float, float]]]) -> None:
        """Shows a chart with one line for each name in `lines`, which gives its points (x, y)."""
        drawn = {name: _thinned(points) for name, points in lines.items() if points}
        if drawn:
            xs, ys = ([[point[place] for point in points] for points in drawn.values()] for place in (0, 1))
            self._show_chart(
                key, lambda: wandb.plot.line_series(xs=xs, ys=ys, keys=list(drawn), title=title, xname=axis)
            )

    def _show_chart(self, key: str, make: Callable[[], Any]) -> None:
        """Logs a chart. The table behind it, which W&B makes a key of its own, is hidden."""
        with lasting(f"the chart {key}"):
            self.experiment.define_metric(f"{key}_table", hidden=True)
        self._show(key, make, f"the chart {key}")

    def _show(self, key: str, make: Callable[[], Any], what: str) -> None:
        with self.adding(what):
            self.experiment.log({key: make()})

    @contextmanager
    def adding(self, what: str) -> Iterator[None]:
        """A `lasting` block in which tables and artifacts may be logged.

        W&B copies their files to a folder in the home directory, from which it uploads them. In the block, the folder is in
        the run's own directory, so that this holds all of an offline run.
        """
        before = os.environ.get(DATA_DIR)
        try:
            if not before:
                os.environ[DATA_DIR] = str(self.experiment.settings.sync_dir)
            with lasting(what):
                yield
        finally:
            if before is None:
                os.environ.pop(DATA_DIR, None)

    def log_pictures(self, name: str, pictures: Mapping[str, Picture], step: int | None = None) -> None:
        """Logs pictures under one key, by their captions."""
        self._show(f"{RESULT}/{name}", lambda: images_of(pictures), f"the pictures {name}")


class StageWandbLogger(WandbLogger):
    """The logger of one stage of a run, such as `expand`, or `train/none/seed0` in a study.

    Each section's charts go on where the stage before ended. The curves of a study's rows and seeds are also kept each by
    itself, under hidden keys.
    """

    def __init__(self, main: LastingWandbLogger, place: str) -> None:
        super().__init__(experiment=main.experiment, save_dir=main.save_dir)
        self.place = place
        self.counts = main.counts
        self.section = section_of(place)
        self._begin = self.counts.ends.get(self.section, 0)
        self._row = place.split("/seed")[0].partition("/")[2]

    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        entry = {charted(self.place, name): value for name, value in metrics.items()}
        if self._row:
            for key, value in entry.items():
                self._define(key)
                self._remember(key, step, value)
            entry |= kept(self.place, metrics)
        if step is not None:
            if self._row:
                entry[ROW_STEP] = step
            self.counts.ends[self.section] = entry[AXES[self.section]] = self._begin + step
        with suppress(ConnectionError):
            self.experiment.log(entry)

    def log_pictures(self, name: str, pictures: Mapping[str, Picture], step: int | None = None) -> None:
        """Charts pictures under one key, by their captions."""
        with lasting(f"the pictures {name}"):
            entry: dict[str, Any] = {charted(self.place, name): images_of(pictures)}
            if step is not None:
                entry[AXES[self.section]] = self._begin + step
            self.experiment.log(entry)

    def _define(self, key: str) -> None:
        """Lets the run's summary leave out a chart of several rows and seeds, whose last value means nothing."""
        if key not in self.counts.charts:
            self.counts.charts.add(key)
            with suppress(ConnectionError):
                define_chart(self.experiment, key, self.section)

    def _remember(self, key: str, step: int | None, value: Any) -> None:
        curve = self.counts.curves.setdefault(key, {}).setdefault(self._row, Curve(self.place))
        if curve.place == self.place and step is not None and isinstance(value, (int, float)):
            curve.points.append((step, value))


def _never_wait_for_artifacts(run: Run) -> None:
    """Lets a run hand over artifacts and tables to W&B's service process, as offline runs do.

    W&B has no setting for this. It asks the server about each artifact first, and waits minutes for one that is silent.
    """

    def hand_over(
        artifact: Any,
        name: str | None = None,
        type: str | None = None,
        aliases: list[str] | None = None,
        tags: list[str] | None = None,
        is_user_created: bool = False,
        use_after_commit: bool = False,
        **_: Any,
    ) -> Any:
        artifact, aliases = run._prepare_artifact(artifact, name, type, aliases)
        run._interface.publish_artifact(
            run, artifact, aliases, tags, is_user_created=is_user_created, use_after_commit=use_after_commit
        )
        return artifact

    run._log_artifact = hand_over


def images_of(pictures: Mapping[str, Picture]) -> list[wandb.Image]:
    """Pictures as W&B has them, by their captions."""
    return [
        wandb.Image(str(picture) if isinstance(picture, Path) else picture, caption=caption or None)
        for caption, picture in pictures.items()
    ]


def _thinned(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """At most `MOST_POINTS` of the points, evenly chosen, with the last one."""
    every = -(-len(points) // MOST_POINTS)
    return list(points[::-1][::every])[::-1]
