"""What a preview shows: a few sources, and the images that an expansion would make of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from omegaconf import DictConfig
from PIL import Image

from distdiff.console.progress import stage_progress
from distdiff.data.images import LabelledImages
from distdiff.data.pixels import to_image
from distdiff.expansion.plan import ExpansionPlan, WorkItem
from distdiff.expansion.strengths import strengths_of
from distdiff.expansion.synthesis import GuidedImg2Img
from distdiff.keys import build, own_keys

STRENGTHS_APART, RHO_FACTORS = 0.2, (0.0, 0.3, 1.0, 3.0)


@dataclass(frozen=True)
class Tile:
    """An image, what it was made of, with which ρ (None: the method has none), and what the method says about it."""

    item: WorkItem
    rho: float | None
    image: Image.Image
    values: dict[str, Any]


def spread_over_classes(labels: np.ndarray, count: int) -> np.ndarray:
    """Positions of `count` images, as many of each class as can be, the first ones; fewer images than classes: of
    classes evenly apart.

    >>> spread_over_classes(np.array([0, 0, 0, 1, 1, 2]), 4), spread_over_classes(np.array([0, 0, 1, 2]), 2)
    (array([0, 1, 3, 5]), array([0, 3]))
    """
    turn = np.zeros(len(labels), dtype=np.int64)
    for label in np.unique(labels):
        turn[labels == label] = np.arange((labels == label).sum())
    order = np.lexsort((labels, turn))  # the first of every class, then the second of every class, ...
    first = int((turn == 0).sum())
    if count < first:
        return np.sort(order[np.linspace(0, first - 1, count).round().astype(np.int64)])
    return np.sort(order[:count])


def strengths_to_show(config: DictConfig) -> list[float]:
    """`preview.strengths`; without them the strengths of the job, and for a single one also a little less and more."""
    if config.preview.strengths:
        return list(dict.fromkeys(config.preview.strengths))
    chosen = strengths_of(config.expansion.strength)
    if len(chosen) == 1:
        chosen = [max(chosen[0] - STRENGTHS_APART, chosen[0] / 2), chosen[0], min(chosen[0] + STRENGTHS_APART, 1.0)]
    return list(dict.fromkeys(float(f"{strength:.3g}") for strength in chosen))


def rhos_to_show(config: DictConfig) -> list[float | None]:
    """`preview.rhos`; without them the job's ρ times 0, 0.3, 1 and 3; one None for a method that has no ρ."""
    if "rho" not in own_keys(config.guidance):
        return [None]
    return list(
        dict.fromkeys(config.preview.rhos or (float(f"{config.guidance.rho * factor:.3g}") for factor in RHO_FACTORS))
    )


def draw_tiles(
    sampler: GuidedImg2Img,
    sources: LabelledImages,
    strengths: Sequence[float],
    rhos: Sequence[float | None],
    config: DictConfig,
) -> list[list[list[Tile]]]:
    """Copy 0 of every source at every strength and ρ, as `expand.py` makes it: `[source][strength][rho]`.

    `sampler` knows the latents of `sources` alone, and has the guidance of the last ρ afterwards.
    """
    tiles: list[list[list[Tile]]] = [[[] for _ in strengths] for _ in range(len(sources))]
    with stage_progress() as progress:
        bar = progress.add_task("preview", total=len(sources) * len(strengths) * len(rhos), unit="images")
        for rho in rhos:
            sampler.guidance = build(config.guidance) if rho is None else build(config.guidance, rho=rho)
            for row, strength in enumerate(strengths):
                items = list(ExpansionPlan(sources, 1, strength, config.seed))
                for start in range(0, len(items), config.expansion.batch_size):
                    batch = items[start : start + config.expansion.batch_size]
                    made = sampler(batch)
                    for place, item in enumerate(batch):
                        values = {name: column[place] for name, column in made.columns.items()}
                        tiles[item.position][row].append(Tile(item, rho, to_image(made.images[place]), values))
                    progress.advance(bar, len(batch))
    return tiles
