"""What a W&B dashboard shows of a multirun: its figures as W&B's own charts, and a table of its jobs."""

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from distdiff.console.output import console
from distdiff.console.record import CONFIG, HYDRA, is_ours
from distdiff.report.sweep.choosing import choices
from distdiff.report.sweep.figure import Estimate, value_title
from distdiff.report.sweep.settings import GUIDANCE, UNTOLD, Setting, Sweep
from distdiff.study.measures import ACCURACY
from distdiff.study.methods import UNGUIDED
from distdiff.tracking.run_ids import kept_id
from distdiff.tracking.sections import RESULT, define_sections
from distdiff.tracking.sweep import SweptJob
from distdiff.tracking.wandb_logger import LastingWandbLogger
from distdiff.tracking.wandb_run import begin, end
from distdiff.tracking.wandb_settings import WITHOUT_SERVER, settings_of

JOB_TYPE = "sweep"
# The settings that the run of a sweep shares with the runs of its jobs.
SHARED = ("project", "entity", "group", "tags", "mode", "dir", "settings")
BY_SETTING = "_by_setting"  # ends the keys of charts, which a study's runs do not have
MOST_GROUPS = 20  # lines, or groups of lines, in a chart


def log_sweep(command: str, directory: Path, jobs: Sequence[SweptJob]) -> None:
    """Makes the run, with the settings of the first job that had a W&B run."""
    tracked = [job for job in jobs if kept_id(Path(job.directory))]
    keys = _logger_keys(Path(tracked[0].directory))
    typed = settings_of({name: keys[name] for name in SHARED if keys.get(name)}) | {"run_job_type": JOB_TYPE}
    run = begin(directory, JOB_TYPE, typed, f"{JOB_TYPE}-{command}-{directory.name}")
    try:
        define_sections(run)
        show_sweep(LastingWandbLogger(run, directory), Sweep.of(command, directory, jobs))
    finally:
        end(run, 0)


def show_sweep(dashboard: LastingWandbLogger, sweep: Sweep) -> None:
    """Logs charts of the values that the sweep's page draws too, a table of all jobs, and the setting that is chosen."""
    dashboard.log_columns(
        {"command": sweep.command, "dataset.name": ", ".join(sweep.datasets), "swept": list(sweep.keys)}
    )
    against = " and ".join(sweep.axes) or "setting"
    for name in sweep.panels:
        title = f"{value_title(sweep, name)} by {against}"
        if sweep.axes:
            dashboard.show_lines(f"{RESULT}/{name}{BY_SETTING}", title, sweep.axes[0], lines(sweep, name))
        else:
            dashboard.show_bars(f"{name}{BY_SETTING}", title, bars(sweep, name))
    dashboard.show_table("jobs_table", job_rows(sweep))
    dashboard.summarize(final_values(sweep))


def lines(sweep: Sweep, name: str) -> dict[str, list[tuple[float, float]]]:
    """Points along the first numeric key, a line for each series; with a second numeric key, one for each of its values.

    A single line has one for each end of its intervals beside it, and one for unguided expansion if that is known.
    """
    series: dict[str, list[tuple[float, Estimate]]] = {}
    for setting in sweep.settings:
        if values := setting.of(name):
            second = [f"{key}={setting.given[key]}" for key in sweep.axes[1:]]
            label = ", ".join(filter(None, [*second, sweep.group(setting)])) or name
            series.setdefault(label, []).append((setting.number(sweep.axes[0]), Estimate.of(values)))
    found = {
        label: [(place, each.mean) for place, each in sorted(of_label, key=lambda point: point[0])]
        for label, of_label in list(series.items())[:MOST_GROUPS]
    }
    if len(series) == 1:
        (points,) = series.values()
        known = [(place, each.interval) for place, each in sorted(points, key=lambda point: point[0]) if each.interval]
        if known:
            found["low end of the 95 % interval"] = [(place, each.low) for place, each in known]
            found["high end of the 95 % interval"] = [(place, each.high) for place, each in known]
        unguided = [each for each in sweep.settings if each.unguided.get(name)]
        if unguided:
            places = [(each.number(sweep.axes[0]), fmean(each.unguided[name].values())) for each in unguided]
            found["unguided"] = sorted(places)
    return found


def bars(sweep: Sweep, name: str) -> list[dict[str, Any]]:
    """The value of each setting, for a chart of settings that are no numbers."""
    found = []
    for setting in sweep.settings:
        if values := setting.of(name):
            estimate = Estimate.of(values)
            low, high = (estimate.interval.low, estimate.interval.high) if estimate.interval else (None, None)
            found.append({"setting": _name(setting), name: estimate.mean, "low": low, "high": high})
    return found


def job_rows(sweep: Sweep) -> list[dict[str, Any]]:
    """A row for each job: its overrides, its figures, how it ended, and the id of its W&B run."""
    keys = (*sweep.keys, *sweep.repeats)
    figures = list(dict.fromkeys(name for job in sweep.jobs for name in job.figures))
    return [
        {"job": job.number}
        | {key: job.given().get(key) for key in keys}
        | {name: job.figures.get(name) for name in figures}
        | {"error": job.error, "run": kept_id(Path(job.directory)), "directory": job.directory}
        for job in sweep.jobs
    ]


def final_values(sweep: Sweep) -> dict[str, Any]:
    """The number of jobs and, if the sweep's rule chooses one setting, that setting and its accuracy."""
    found: dict[str, Any] = {"jobs": len(sweep.jobs), "failed_jobs": len(sweep.failed)}
    chosen = choices(sweep)
    if len(chosen) == 1:
        setting = chosen[0].chosen
        values = {key: setting.number(key) if key in sweep.numeric else setting.given[key] for key in sweep.keys}
        values |= {GUIDANCE: UNGUIDED} if setting.is_unguided else {}
        found |= {f"chosen/{key}": value for key, value in values.items() if value not in (None, UNTOLD)}
        found[ACCURACY] = chosen[0].mean(setting)
    return found


def _name(setting: Setting) -> str:
    return ", ".join(f"{key}={value}" if len(setting.given) > 1 else value for key, value in setting.given.items())


def _logger_keys(directory: Path) -> dict[str, Any]:
    """The settings in `SHARED` of a job, from the configuration that it has written.

    If not all of them can be read, the run is to stay offline, which a line says: it might belong to another project, or
    the job may have been told not to go online.
    """
    keys, unknown = {}, list(SHARED)
    for path in (directory / CONFIG, directory / HYDRA / CONFIG):
        found, lacking = _readable(path)
        if len(lacking) < len(unknown):
            keys, unknown = found, lacking
    if not unknown:
        return keys
    names = "logger keys" if len(unknown) == len(SHARED) else ", ".join(f"logger.{name}" for name in unknown)
    console.print(
        f"W&B      the run of the sweep stays offline: the configuration in {directory} does not tell its {names}"
    )
    return keys | {"mode": keys["mode"] if keys.get("mode") in WITHOUT_SERVER else "offline"}


def _readable(path: Path) -> tuple[dict[str, Any], list[str]]:
    """The settings in `SHARED` that a configuration of ours or Hydra's gives, and those that cannot be read there.

    A value may refer to what Hydra knew only while the job ran.
    """
    try:
        logger = OmegaConf.load(path)["logger"] if path.parent.name == HYDRA or is_ours(path) else None
        names = [name for name in SHARED if name in logger]
    except (OSError, ValueError, TypeError, KeyError, yaml.YAMLError, OmegaConfBaseException):
        return {}, list(SHARED)
    keys, unknown = {}, []
    for name in names:
        try:
            value = logger[name]
            keys[name] = OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value
        except OmegaConfBaseException:
            unknown.append(name)
    return keys, unknown
