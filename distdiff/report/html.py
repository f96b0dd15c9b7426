"""`report.html`: the report on a study, a single page that needs no other files."""

import base64
import io
from pathlib import Path

from jinja2 import Environment, PackageLoader
from markupsafe import Markup
from matplotlib.figure import Figure
from omegaconf import DictConfig, OmegaConf

from distdiff.report.table import accuracy_rows, measure_notes, measure_rows
from distdiff.study.results import StudyResults


def write_report(results: StudyResults, config: DictConfig, samples: Path, legend: list[str], path: Path) -> None:
    """Fills the template `page.html` with the results, and writes the page to `path`.

    All text is escaped. `samples` is the file of the sample grid, and `legend` has the titles of the grid's rows.
    """
    page = Environment(loader=PackageLoader("distdiff", "report"), autoescape=True).get_template("page.html")
    text = page.render(
        results=results,
        accuracies=accuracy_rows(results),
        measures=measure_rows(results),
        notes=measure_notes(results),
        plot=Markup(accuracy_plot(results)),
        samples=base64.b64encode(samples.read_bytes()).decode(),
        legend=legend,
        timing=results.timing,
        budget=config.train.budget,
        config=OmegaConf.to_yaml(config, resolve=True),
    )
    path.write_text(text, encoding="utf-8")


def accuracy_plot(results: StudyResults) -> str:
    """A plot of the accuracies as an SVG element.

    Each line joins the accuracies of all methods for one seed, since methods are compared seed by seed.
    """
    figure = Figure(figsize=(7, 3.2), layout="constrained")
    axes = figure.subplots()
    methods = [row.method for row in results.rows]
    for index, seed in enumerate(results.rows[0].values("seed")):
        axes.plot(methods, [row.seeds[index].accuracy for row in results.rows], "o-", label=f"seed {seed}", alpha=0.7)
    axes.set_ylabel(f"accuracy ({results.split})")
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg")  # this uses its own canvas, not matplotlib's current backend
    return buffer.getvalue()[buffer.getvalue().index("<svg") :]
