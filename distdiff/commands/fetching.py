"""`fetch_only=true`: fills the Hugging Face cache with what a command needs, for nodes without a network."""

from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from distdiff.caching.stages import StageCache
from distdiff.config.command import OPTIONS, ROWS
from distdiff.console.quiet import quiet_libraries
from distdiff.data.datasets import load_dataset


def fetch(config: DictConfig, run_dir: Path) -> None:
    """Downloads the dataset and the models that a command needs, and prints the name, size and place of each."""
    if "dataset" not in config:
        print(f"ready  {config.command} needs nothing from the hub", flush=True)
        return
    splits = load_dataset(config.dataset)
    images = sum(map(len, (splits.train, splits.validation, splits.test)))
    hub_id = config.dataset.get("hub_id")
    if hub_id is None or config.dataset.get("root") is not None:
        print(f"ready  dataset {config.dataset.name}  {images:,} images", flush=True)
    else:
        from distdiff.data.sources.tables import prepared_below

        _report({f"dataset {config.dataset.name}  {images:,} images of {hub_id}": prepared_below(hub_id)})
    if "generator" not in config:
        return
    # These take seconds to import, so they are imported only if needed.
    from distdiff.encoders.source import encoder_source
    from distdiff.generator.pipelines import fetch_generator
    from distdiff.keys import build

    quiet_libraries()
    _report(fetch_generator(config.generator))
    _report(encoder_source(config, StageCache(config.paths.cache_dir)).fetch())
    for selection in selections_of(config):
        _report(build(selection).fetch())


def selections_of(config: DictConfig) -> list[DictConfig]:
    """The selections of the job and of all its rows or candidates, without repetition."""
    if "selection" not in config:
        return []
    options = config[OPTIONS]
    rows = [row.selection for row in options.get(ROWS, {}).values()]
    found = [config.selection, *options.get("selection", {}).values(), *rows]
    return list({OmegaConf.to_yaml(each): each for each in found}.values())


def size_of(folder: Path) -> int:
    """The total size, in bytes, of the files below a folder.

    Links are followed, because the cache stores one copy of a file that several revisions share.
    """
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _report(folders: dict[str, Path]) -> None:
    for name, folder in folders.items():
        print(f"ready  {name}  {size_of(folder) / 1e6:,.1f} MB  {folder}", flush=True)
