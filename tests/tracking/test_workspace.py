"""The saved view of a W&B project: what it shows, and what is said where it cannot be saved."""

import json
import os
import sys
from pathlib import Path

import pytest
from conftest import compose
from wandb_runs import alone_with_wandb  # noqa: F401 (a fixture)
from wandb_server import ENTITY, KEY, WandbServer

from distdiff.commands.dashboard import SPECIFICATION, dashboard
from distdiff.errors import UserError
from distdiff.tracking.sections import SECTIONS

pytestmark = pytest.mark.usefixtures("alone_with_wandb")


@pytest.fixture
def _with_workspaces() -> None:
    pytest.importorskip("wandb_workspaces", reason="the extra `dashboard` is not installed")


def saved(folder: Path, *keys: str) -> dict:
    dashboard(compose("dashboard", list(keys)), folder)
    return json.loads((folder / SPECIFICATION).read_text())


def panels(view: dict) -> dict[str, str]:
    """What each section shows, as text."""
    sections = view["spec"]["section"]["panelBankConfig"]["sections"]
    return {section["name"]: json.dumps(section["panels"]) for section in sections}


@pytest.mark.usefixtures("_with_workspaces")
def test_the_view_has_the_four_sections_with_the_keys_that_runs_log(tmp_path: Path) -> None:
    view = saved(
        tmp_path, "dashboard.save=false", "dashboard.project=mine", "dashboard.entity=us", "dashboard.name=View"
    )
    assert (view["entity"], view["project"], view["displayName"]) == ("us", "mine", "View")
    shown = panels(view)
    assert tuple(shown) == SECTIONS
    wanted = {
        "Result": [
            "accuracy_table",
            "results_table",
            "samples_table",
            "accuracy_by_setting_table",
            "jobs_table",
            "samples",
        ],
        "Expansion": [
            "images",
            "images_per_second",
            "energy_before",
            "energy_after",
            "failures",
            "energy_by_row_table",
        ],
        "Training": ["step", "loss", "val_accuracy", "loss_by_row_table"],
        "System": ["memory_gb"],
    }
    for section, keys in wanted.items():
        assert [key for key in keys if f'"{section}/{key}"' not in shown[section]] == []
    axes = [panel["config"]["xAxis"] for panel in json.loads(shown["Expansion"]) if "metrics" in panel["config"]]
    assert set(axes) == {"Expansion/images"}
    assert '"config:rho.value"' in shown["Result"]


@pytest.mark.usefixtures("_with_workspaces")
def test_runs_are_grouped_by_job_type_or_filtered_by_it(tmp_path: Path) -> None:
    (runs,) = saved(tmp_path, "dashboard.save=false")["spec"]["section"]["runSets"]
    assert runs["grouping"] == [{"section": "run", "name": "jobType"}]
    assert {"config:dataset.name.value", "config:method.value", "summary:accuracy"} <= runs["runFeed"][
        "columnPinned"
    ].keys()
    (runs,) = saved(tmp_path, "dashboard.save=false", "dashboard.job_type=sweep")["spec"]["section"]["runSets"]
    assert runs["grouping"] == []
    assert '"jobType"' in json.dumps(runs["filters"])
    assert '"sweep"' in json.dumps(runs["filters"])


@pytest.mark.usefixtures("_with_workspaces")
def test_the_view_is_saved_on_the_server_of_the_key(monkeypatch, tmp_path: Path, capsys) -> None:
    with WandbServer() as server:
        monkeypatch.setenv("WANDB_BASE_URL", server.url)
        monkeypatch.setenv("WANDB_API_KEY", KEY)
        view = saved(tmp_path, "dashboard.project=mine")
        (given,) = server.views
    assert (given["entityName"], given["projectName"], given["displayName"]) == (ENTITY, "mine", "DistDiff")
    assert (
        json.loads(given["spec"])["section"]["panelBankConfig"].keys()
        == view["spec"]["section"]["panelBankConfig"].keys()
    )
    assert capsys.readouterr().out.splitlines()[-1].startswith(f"saved    {server.url}/{ENTITY}/mine?nw=")


@pytest.mark.usefixtures("_with_workspaces")
@pytest.mark.parametrize("kind", ["no key", "refused"])
def test_a_view_that_cannot_be_saved_is_one_line_that_says_how_to_go_without(kind, monkeypatch, tmp_path: Path) -> None:
    with WandbServer(refuses=401) as server:
        if kind == "refused":
            monkeypatch.setenv("WANDB_BASE_URL", server.url)
            monkeypatch.setenv("WANDB_API_KEY", KEY)
        with pytest.raises(UserError, match=r"dashboard\.save=false writes the specification alone$") as caught:
            saved(tmp_path, "dashboard.entity=us")
    assert "\n" not in str(caught.value)
    assert ("wandb login" in str(caught.value)) == (kind == "no key")


def test_a_missing_package_is_one_line(monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "wandb_workspaces", None)
    with pytest.raises(UserError, match=r"not installed: pip install wandb-workspaces$"):
        saved(tmp_path, "dashboard.save=false")
    assert os.listdir(tmp_path) == []
