"""A saved view of a W&B project, which shows the runs of DistDiff in the sections that their keys name.

The package `wandb-workspaces` is an extra, so it is imported where it is needed.
"""

from types import ModuleType
from typing import Any

from pydantic import ValidationError

from distdiff.errors import UserError
from distdiff.tracking.sections import EXPANSION, IMAGES, RESULT, STEP, SYSTEM, TRAINING

LACKING = "distdiff dashboard needs a package that is not installed: pip install wandb-workspaces"
# The columns of the table of runs that stand first.
COLUMNS = (
    *(
        "run:displayName",
        "run:jobType",
        "config:dataset.name.value",
        "config:method.value",
        "config:rho.value",
    ),
    *("config:seed.value", "summary:accuracy", "summary:accuracy_low", "summary:accuracy_high"),
    *("summary:frechet_distance", "summary:label_consistency", "summary:coverage"),
)
LINES = {"step": "step", "lineKey": "lineKey", "lineVal": "lineVal"}  # the columns of W&B's charts of several lines


def modules() -> tuple[ModuleType, ModuleType]:
    """The package's modules for workspaces and for charts. Raises `UserError` if the package is missing."""
    try:
        import wandb_workspaces.reports.v2 as charts
        import wandb_workspaces.workspaces as workspaces
    except ModuleNotFoundError as error:
        if not str(error.name).startswith("wandb_workspaces"):
            raise
        raise UserError(LACKING) from None
    return workspaces, charts


def build_workspace(entity: str, project: str, name: str, job_type: str | None = None) -> Any:
    """The workspace `name` of a project.

    It shows the runs of one job type or, if `job_type` is None, all runs, grouped by job type. Raises `UserError` for a
    name that W&B does not accept.
    """
    ws, charts = modules()
    runs = {"groupby": [ws.Metric("JobType")]} if job_type is None else {"filters": [ws.Metric("JobType") == job_type]}
    try:
        return ws.Workspace(
            entity=entity,
            project=project,
            name=name,
            sections=[
                ws.Section(name=title, panels=panels, is_open=True)
                for title, panels in (
                    (RESULT, _result(charts)),
                    (EXPANSION, _expansion(charts)),
                    (TRAINING, _training(charts)),
                    (SYSTEM, [charts.LinePlot(title="memory, GB", x=IMAGES, y=[f"{SYSTEM}/memory_gb"])]),
                )
            ],
            settings=ws.WorkspaceSettings(group_by_prefix="first", max_runs=50),
            runset_settings=ws.RunsetSettings(pinned_columns=list(COLUMNS), **runs),
        )
    except ValidationError as error:
        raise UserError(f"dashboard.name={name} is not allowed: {error.errors()[0]['msg']}") from None


def _result(charts: ModuleType) -> list[Any]:
    rho, accuracy = charts.Config("rho"), charts.SummaryMetric("accuracy")
    by_setting = [
        ("accuracy_by_setting", "accuracy by setting"),
        ("frechet_distance_by_setting", "Frechet distance by setting"),
        ("label_consistency_by_setting", "label consistency by setting"),
        ("coverage_by_setting", "coverage by setting"),
    ]
    return [
        _chart(
            charts, f"{RESULT}/accuracy", "bar", {"label": "method", "value": "accuracy"}, "accuracy of the methods"
        ),
        charts.ScatterPlot(title="accuracy of the chosen row against guidance strength", x=rho, y=accuracy),
        *(_chart(charts, f"{RESULT}/{key}", "lineseries", LINES, title) for key, title in by_setting),
        charts.WeavePanelSummaryTable(table_name=f"{RESULT}/results_table"),
        charts.WeavePanelSummaryTable(table_name=f"{RESULT}/samples_table"),
        charts.WeavePanelSummaryTable(table_name=f"{RESULT}/jobs_table"),
        charts.MediaBrowser(title="samples", media_keys=[f"{RESULT}/samples"], num_columns=1),
    ]


def _expansion(charts: ModuleType) -> list[Any]:
    energies = [f"{EXPANSION}/energy_before", f"{EXPANSION}/energy_after"]
    return [
        charts.LinePlot(title="energy before and after", x=IMAGES, y=energies),
        charts.LinePlot(title="images per second", x=IMAGES, y=[f"{EXPANSION}/images_per_second"]),
        charts.LinePlot(title="failures", x=IMAGES, y=[f"{EXPANSION}/failures"]),
        _chart(charts, f"{EXPANSION}/energy_by_row", "lineseries", LINES, "energy by row"),
        charts.MediaBrowser(title="latest images", media_keys=[f"{EXPANSION}/samples"], num_columns=1),
    ]


def _training(charts: ModuleType) -> list[Any]:
    return [
        charts.LinePlot(title="loss", x=STEP, y=[f"{TRAINING}/loss"]),
        charts.LinePlot(title="validation accuracy", x=STEP, y=[f"{TRAINING}/val_accuracy"]),
        _chart(charts, f"{TRAINING}/loss_by_row", "lineseries", LINES, "loss by row"),
    ]


def _chart(charts: ModuleType, key: str, kind: str, fields: dict[str, str], title: str) -> Any:
    """One of W&B's own charts, of the table that stands behind the chart `key` of a run."""
    return charts.CustomChart(
        query={"summaryTable": {"tableKey": f"{key}_table"}},
        chart_name=f"wandb/{kind}/v0",
        chart_fields=fields,
        chart_strings={"title": title},
    )
