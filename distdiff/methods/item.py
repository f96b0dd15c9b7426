"""One image to make, as planned: what it is made of, what it is called, and its label."""

from dataclasses import dataclass

from distdiff.data.soft_labels import SoftLabel
from distdiff.generator.noise import image_seed


@dataclass(frozen=True)
class WorkItem:
    """One image to make: what names and seeds it, and the real images that it is made of.

    - `position`: of its source among the real images; None for a method that reads none.
    - `copy`: which copy of its source it is; without a source, which image of its class.
    - `strength`: the share of denoising steps that run; None for a method that denoises nothing.
    - `label`, `class_name`: its class; of a soft label the heaviest.
    - `source`: the source's key inside its class, None without one; `source_class`: that class, where it is not `class_name`.
    - `partners`: positions of further real images that it is made of.
    - `sources`: all images that it is made of, `class/key` each, the source first.
    - `soft_label`: its classes with their weights, the heaviest first; empty for a label that is not soft.
    """

    position: int | None
    copy: int
    seed: int
    strength: float | None
    label: int
    class_name: str
    source: str | None
    file_name: str
    source_class: str | None = None
    partners: tuple[int, ...] = ()
    sources: tuple[str, ...] = ()
    soft_label: SoftLabel = ()

    def seed_for(self, seed: int, purpose: str) -> int:
        """The seed of one of its streams of random numbers, under the study's `seed`; `purpose` tells its streams apart."""
        return image_seed(seed, self.source_class or self.class_name, self.source or "", self.copy, purpose)
