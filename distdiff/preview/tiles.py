"""The images of a preview, which are images that an expansion would make from a few sources."""

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from omegaconf import DictConfig
from PIL import Image

from distdiff.console.stages import display
from distdiff.data.pixels import to_image
from distdiff.expansion.batch_size import usual_batch_size
from distdiff.expansion.materials import Materials
from distdiff.expansion.plan import ExpansionPlan
from distdiff.expansion.strengths import strengths_of
from distdiff.methods.base import Method
from distdiff.methods.building import build_method
from distdiff.methods.config import needs_of, reads_strength
from distdiff.methods.item import WorkItem
from distdiff.methods.synthesis import Synthesizer
from distdiff.preview.config import has_strengths_of_guidance
from distdiff.ranks.trainer import trainer_device

STRENGTHS_APART, RHO_FACTORS = 0.2, (0.0, 0.3, 1.0, 3.0)


@dataclass(frozen=True)
class Tile:
    """An image, the work item that it was made from, the ρ used (or None), and the values of the method's columns."""

    item: WorkItem
    rho: float | None
    image: Image.Image
    values: dict[str, Any]


def spread_over_classes(labels: np.ndarray, count: int) -> np.ndarray:
    """The positions of `count` images, which are spread over the classes as evenly as possible.

    From each class, the first images are taken. If there are more classes than `count`, only evenly spaced classes have
    an image.

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
    """The strengths to show: the values of `preview.strengths` or, by default, the strengths of the job.

    If the job has only one strength, the default adds a lower and a higher strength. If the method reads no strength,
    the list has only the job's first strength.
    """
    if not reads_strength(config.method):
        return strengths_of(config.expansion.strength)[:1]
    if config.preview.strengths:
        return list(dict.fromkeys(config.preview.strengths))
    chosen = strengths_of(config.expansion.strength)
    if len(chosen) == 1:
        chosen = [max(chosen[0] - STRENGTHS_APART, chosen[0] / 2), chosen[0], min(chosen[0] + STRENGTHS_APART, 1.0)]
    return list(dict.fromkeys(float(f"{strength:.3g}") for strength in chosen))


def rhos_to_show(config: DictConfig) -> list[float | None]:
    """The values of ρ to show: the values of `preview.rhos` or, by default, the job's ρ times 0, 0.3, 1 and 3.

    If the job uses no ρ, the list is `[None]`.
    """
    if not has_strengths_of_guidance(config):
        return [None]
    return list(
        dict.fromkeys(config.preview.rhos or (float(f"{config.guidance.rho * factor:.3g}") for factor in RHO_FACTORS))
    )


def first_images(plan: ExpansionPlan, positions: Sequence[int]) -> list[np.ndarray]:
    """For each source at `positions`, the indices (m,) of the images that must be made to show its first image.

    The index of the first image comes first. There are further indices if the method makes the copies of a source
    together.
    """
    indices = np.arange(len(plan))
    numbers = plan.source_numbers(indices)
    own = [indices[numbers == position] for position in positions]
    return [found[: plan.method.group_size or 1] for found in own]


def draw_tiles(
    materials: Materials, positions: Sequence[int], strengths: Sequence[float], rhos: Sequence[float | None]
) -> list[list[list[Tile]]]:
    """Makes the first image of every source at `positions` with every strength and ρ, as `expand.py` would make it.

    The tiles are indexed as `[source][strength][rho]`.
    """
    config, images = materials.config, materials.train
    method = build_method(config)
    tiles: list[list[list[Tile]]] = [[[] for _ in strengths] for _ in positions]
    with display.stage("preview", len(positions) * len(strengths) * len(rhos), "images") as bar:
        for rho in rhos:
            synthesizer = synthesizer_for(materials, method, rho)
            for row, strength in enumerate(strengths):
                plan = ExpansionPlan(images, config.expansion.factor, strength, config.seed, method=method)
                wanted = first_images(plan, positions)
                size = 1 if method.together else usual_batch_size(config)
                groups = [synthesizer.group(plan[int(indices[0])].strength) for indices in wanted]
                for batch in batches_of(wanted, size, groups):
                    items = [plan[int(index)] for _, indices in batch for index in indices]
                    made, start = synthesizer(items), 0
                    for place, indices in batch:
                        values = {name: column[start] for name, column in made.columns.items()}
                        tiles[place][row].append(Tile(items[start], rho, to_image(made.images[start]), values))
                        start += len(indices)
                    bar.advance(len(batch))
    return tiles


def synthesizer_for(materials: Materials, method: Method, rho: float | None) -> Synthesizer:
    """The synthesizer of `method` with this ρ, on the trainer's device.

    If `rho` is None, the guidance is as configured.
    """
    if "guidance" in needs_of(materials.config.method):
        given = {} if rho is None else {"rho": rho}
        materials.guidance = materials.guidance_with(**given)
    return materials.synthesizer(method).to(trainer_device(materials.config.trainer)).eval()


def batches_of(
    wanted: Sequence[np.ndarray], size: int, groups: Sequence[Hashable]
) -> Iterator[list[tuple[int, np.ndarray]]]:
    """Batches of at most `size` places, each with the indices of its images; the places of a batch have one of `groups`."""
    together: dict[Hashable, list[tuple[int, np.ndarray]]] = {}
    for place, (indices, group) in enumerate(zip(wanted, groups, strict=True)):
        together.setdefault(group, []).append((place, indices))
    for numbered in together.values():
        for start in range(0, len(numbered), size):
            yield numbered[start : start + size]
