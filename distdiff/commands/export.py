"""Filters, merges, converts and uploads expanded datasets: distdiff export export.source=<dir> export.output_dir=<dir>."""

from pathlib import Path

from omegaconf import DictConfig

from distdiff.console.progress import console
from distdiff.errors import UserError
from distdiff.links import link
from distdiff.ranks.world import world
from distdiff.store.copying import copy_images
from distdiff.store.filtering import RowFilter
from distdiff.store.merging import merged
from distdiff.store.reading import finished_directories, select
from distdiff.store.upload import check_repo, upload


def export(config: DictConfig, run_dir: Path) -> Path:
    """Writes the directory `export.output_dir`, makes a link to it in `run_dir`, and returns its path.

    If `export.repo_id` is given, the directory is also uploaded.

    If there are several ranks, only the leading rank does this.
    """
    return world().once(lambda: _export(config, run_dir))


def _export(config: DictConfig, run_dir: Path) -> Path:
    keys = config.export
    for key in ("source", "output_dir"):
        if keys[key] is None:
            raise UserError(f"export.{key} has no value: give one, export.{key}=<directory>")
    if keys.repo_id is not None:
        check_repo(keys.repo_id, "export.repo_id")
    target = Path(keys.output_dir).expanduser()
    sources = finished_directories("export.source", keys.source)
    for source in sources:
        if target.resolve().is_relative_to(source.path.resolve()):
            raise UserError(f"export.output_dir={target} is not allowed: it lies in export.source={source.path}")
    where = RowFilter.of("export.where", keys.where)
    selection = merged(select(sources, where))
    copy_images(selection, where, target, keys.format, keys.shard_size, "export.output_dir")
    link(run_dir / "exported", target, config.paths.output_dir)
    console.print(f"exported {target}  ({len(selection.rows):,} images)")
    if keys.repo_id is not None:
        console.print(f"uploaded {upload(target, keys.repo_id, keys.private, 'export.repo_id')}")
    return target
