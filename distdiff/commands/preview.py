"""Shows what an expansion would make and what it would cost: distdiff preview dataset=digits guidance=direct."""

import json
import math
import time
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import DictConfig

from distdiff.caching.stages import StageCache
from distdiff.classification.training import few_shot_training_set
from distdiff.commands.enlarging import say_enlarged_images
from distdiff.console.progress import console
from distdiff.data.datasets import load_dataset
from distdiff.data.images import LabelledImages
from distdiff.data.pixels import to_image
from distdiff.expansion.assembly import Assembly
from distdiff.expansion.batch_size import batch_size_for
from distdiff.expansion.estimate import Estimate, mean_size
from distdiff.expansion.generators import Generators
from distdiff.expansion.materials import Materials
from distdiff.expansion.naming import row_name, run_columns, run_name
from distdiff.expansion.plan import ExpansionPlan
from distdiff.expansion.strengths import strengths_of
from distdiff.keys import build
from distdiff.methods.config import reads_strength
from distdiff.methods.item import WorkItem
from distdiff.preview.sheet import contact_sheet
from distdiff.preview.tiles import (
    Tile,
    draw_tiles,
    rhos_to_show,
    spread_over_classes,
    strengths_to_show,
    synthesizer_for,
)
from distdiff.ranks.arrangement import count_devices
from distdiff.ranks.trainer import trainer_device
from distdiff.ranks.world import world
from distdiff.selection.base import Selection
from distdiff.store.names import safe_name
from distdiff.store.options import StorageOptions
from distdiff.tracking.loggers import log_images, tracked


def preview(config: DictConfig, run_dir: Path) -> None:
    """Writes one contact sheet per source and `preview.json` into the run's directory.

    The guide and the prototypes are made from all sources and cached for the expansion. Latents are made only for the
    sources that are shown. If there are several ranks, only the leading rank does this.
    """
    world().once(lambda: _preview(config, run_dir))


def _preview(config: DictConfig, run_dir: Path) -> None:
    device = trainer_device(config.trainer)  # fails now if there is no such device
    cache = StageCache(config.paths.cache_dir)
    data = few_shot_training_set(config, load_dataset(config.dataset).train, config.seed)
    say_enlarged_images(config, data.parts[0])
    positions = spread_over_classes(data.parts[0].labels, config.preview.sources)
    sources = data.parts[0].select(positions)
    strengths, rhos, name = strengths_to_show(config), rhos_to_show(config), row_name(config)
    assembly = Assembly(config, cache, Generators(keeps_beginnings=len(rhos) > 1))
    method = assembly.method(data)  # what it refuses is refused before the guide is trained
    with tracked(config, run_dir, run_name(config), run_columns(config)) as logger:
        materials = assembly.materials(data, config.seed, "preview: expand", few=True)
        tiles = draw_tiles(materials, positions.tolist(), strengths, rhos)
        drawn = [tile for rows in tiles for row in rows for tile in row]
        sheets = _sheet_names(sources)
        for position, rows in enumerate(tiles):
            source = sources.square(position, config.generator.resolution, data.fit)
            sheet = run_dir / sheets[position]
            contact_sheet(source, rows, _title(sources, position, name)).save(sheet)
        log_images(logger, "preview", {Path(sheet).stem: run_dir / sheet for sheet in sheets})
        keys = config.expansion
        selection: Selection = build(config.selection)
        factor = selection.factors(keys.factor)[0]  # with a selection, the first round of candidates
        plan = ExpansionPlan(data.parts[0], factor, keys.strength, config.seed, balance=keys.balance, method=method)
        speed = measure_speed(materials, positions, plan)
        total = len(plan)
        devices = count_devices(config.trainer) * config.trainer.num_nodes
        size = mean_size([tile.image for tile in drawn], StorageOptions.of(config).encoding)
        estimate = Estimate(total, devices / speed["seconds_per_image"], size)
    result = {
        "dataset": config.dataset.name,
        "method": name,
        "seed": config.seed,
        "strengths": strengths,
        "rhos": rhos,
        "estimate": estimate.as_dict() | speed | {"device": str(device), "devices": devices},
        "sources": [_described(sources, position, rows, sheets[position]) for position, rows in enumerate(tiles)],
    }
    (run_dir / "preview.json").write_text(json.dumps(result, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    at_strength = f" at strength {config.expansion.strength}" if reads_strength(config.method) else ""
    several = f" on {devices} devices" if devices > 1 else ""
    console.print(f"the whole job{several}, in batches of {speed['batch_size']}{at_strength}: {estimate}")
    console.print(f"preview  {run_dir}  ({len(sheets)} sheets)")


def measure_speed(materials: Materials, positions: np.ndarray, plan: ExpansionPlan) -> dict[str, Any]:
    """Measures the seconds per image on this device, in batches as large as the job's, at each of the job's strengths.

    The time includes the encoding of image files. The images are made from the sources at `positions`. If strengths are drawn
    from a range, both ends of the range are measured. On a GPU, a warm-up batch comes first.
    """
    config, total = materials.config, len(plan)
    strengths, device = strengths_of(config.expansion.strength), trainer_device(config.trainer)
    synthesizer = synthesizer_for(materials, plan.method, rho=None)

    def items(count: int, strength: float) -> list[WorkItem]:
        few = len(positions) if plan.method.group_size is None else 1
        copies = ExpansionPlan(
            materials.train, math.ceil(count / few), strength, config.seed, method=plan.method, chosen=positions[:few]
        )
        return list(islice(copies, count))

    def seconds(strength: float) -> float:
        of_batch = items(batch_size, strength)
        started = time.perf_counter()
        made = synthesizer(of_batch)
        mean_size([to_image(pixels) for pixels in made.images], StorageOptions.of(config).encoding)
        return time.perf_counter() - started

    with synthesizer.alone():
        fitting = plan.method.group_size or batch_size_for(config, synthesizer, items(2, strengths[0]), device)
        batch_size = plan.method.group_size or max(1, min(fitting, total // len(strengths)))
        warm_up = None if device.type == "cpu" else seconds(strengths[0])
        measured = [seconds(strength) for strength in strengths]
    return {
        "seconds_per_image": sum(measured) / len(measured) / batch_size,
        "batch_size": batch_size,
        "warm_up_seconds": warm_up,
    }


def _sheet_names(sources: LabelledImages) -> list[str]:
    """The sheets' file names, `<class>-<source>.png`. If two names would be equal, the later name gets a number."""
    names: list[str] = []
    for label, key in zip(sources.labels, sources.keys, strict=True):
        stem = safe_name(f"{sources.class_names[label]}-{key}")
        names.append(f"{stem}.png" if f"{stem}.png" not in names else f"{stem}-{len(names)}.png")
    return names


def _title(sources: LabelledImages, position: int, method: str) -> str:
    return f"{sources.class_names[sources.labels[position]]}: {sources.keys[position]}   {method}"


def _described(sources: LabelledImages, position: int, rows: list[list[Tile]], sheet: str) -> dict[str, Any]:
    tiles = [
        {"strength": tile.item.strength, "rho": tile.rho, "seed": tile.item.seed}
        | {name: _finite(value) for name, value in tile.values.items()}
        for row in rows
        for tile in row
    ]
    class_name = sources.class_names[sources.labels[position]]
    return {"class_name": class_name, "source": sources.keys[position], "sheet": sheet, "tiles": tiles}


def _finite(value: Any) -> Any:
    """The value, or None for NaN and infinities, which JSON does not have."""
    return None if isinstance(value, float) and not math.isfinite(value) else value
