"""The images that a row adds under one data seed: made, linked from the run's directory, and measured."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from distdiff.data.images import LabelledImages
from distdiff.expansion.job import ExpansionJob
from distdiff.links import link
from distdiff.metrics.measuring import Measurer
from distdiff.ranks.world import world
from distdiff.store.columns import METADATA
from distdiff.store.directory import ExpandedDirectory
from distdiff.store.energies import energy_table
from distdiff.store.names import safe_name
from distdiff.store.reading import planned, read_expanded
from distdiff.store.tables import read_table


@dataclass(frozen=True)
class Expanded:
    """An expansion that is made: its images, its directory, its measures, remarks on these, and the values in all views."""

    images: LabelledImages
    path: Path
    measures: dict[str, float] = field(default_factory=dict)
    remarks: dict[str, str] = field(default_factory=dict)
    views: dict[str, Any] = field(default_factory=dict)


def read_made(
    job: ExpansionJob, folder: str, real: LabelledImages, config: DictConfig, run_dir: Path
) -> LabelledImages:
    """The images of a job that is done. Links the run's directory to them; `folder` begins the link's name."""
    images = read_expanded(job.path, real, job.contents)
    if world().leads:
        place = run_dir / "expanded" / f"{safe_name(folder)}-seed{job.seed}"
        link(place, job.path, config.paths.output_dir)
    return images


def measured(job: ExpansionJob, images: LabelledImages, measurer: Measurer) -> Expanded:
    """The expansion with the measures that apply to its method, and remarks on them."""
    found = world().once(lambda: measurer.measured(images))
    measures: dict[str, float | None] = dict(found.values)
    rows = read_table(job.path / METADATA).to_pylist()
    energies = energy_table(rows if job.contents is None else planned(rows, job.contents))
    measures["energy_before"] = energies.get("energy_before_median")
    measures["energy_after"] = energies.get("energy_after_median")
    measures["images_per_second"] = ExpandedDirectory(job.path).images_per_second()
    known = {name: value for name, value in measures.items() if value is not None}
    return Expanded(images, job.path, known, found.remarks, found.as_dict())
