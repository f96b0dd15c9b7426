"""Runs the whole study on one dataset: distdiff run dataset=digits guidance=direct guidance.rho=1."""

from pathlib import Path

from lightning.pytorch.loggers import Logger
from omegaconf import DictConfig

from distdiff.commands.enlarging import say_enlarged_images
from distdiff.commands.groups import GROUPS
from distdiff.config.command import Command
from distdiff.console.progress import console
from distdiff.expansion.naming import run_columns, run_name
from distdiff.ranks.world import world
from distdiff.report.curves import scaling_figure
from distdiff.report.dashboard import show_study
from distdiff.report.html import write_report
from distdiff.report.samples import Samples, collect
from distdiff.report.table import print_results
from distdiff.study.results import StudyResults
from distdiff.study.study import Study
from distdiff.tracking.loggers import log_image, tracked

WORK = "distdiff.study.working:work"  # what the further processes of a study do


def run(config: DictConfig, run_dir: Path) -> float | None:
    """Runs the study, prints and logs its results, and writes results, report and sample grid into `run_dir`.

    Returns `study.objective` of the row that the job's keys choose; None if the study has no such row.
    """
    study = Study(config, run_dir)
    plan = study.plan()
    say_enlarged_images(config, plan.pool.parts[0])
    with tracked(config, run_dir, run_name(config), run_columns(config)) as logger:
        results = study.run(plan, logger, WORK)
        if world().leads:
            samples = collect(
                results, plan.seeds[0].data.parts[0], config.generator.resolution, config.dataset.fit, study.measurer
            )
            _publish(results, samples, config, run_dir, logger)
            show_study(logger, results, samples)
    return results.objective(config.study.objective)


def _publish(results: StudyResults, samples: Samples, config: DictConfig, run_dir: Path, logger: Logger | None) -> None:
    picture, report = run_dir / "samples.png", run_dir / "report.html"
    samples.draw(picture)
    log_image(logger, "samples", picture, caption=f"a column a class; rows: {', '.join(samples.titles)}")
    if results.factors:
        scaling_figure(results).savefig(run_dir / "scaling.svg")
    write_report(results, config, samples, report, list(Command(config.command, GROUPS).warnings(config)))
    print_results(results)
    console.print(f"\nreport   {report}")
    console.print(f"results  {run_dir / 'results.json'}")
