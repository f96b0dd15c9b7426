"""The plan for one new image: its sources, its name and its label."""

from dataclasses import dataclass

from distdiff.data.soft_labels import SoftLabel
from distdiff.generator.noise import image_seed


@dataclass(frozen=True)
class WorkItem:
    """Describes one image to make: its name, its seed and the real images that it is made from.

    - `position`: the source's position among the real images; None if the method reads no real images.
    - `copy`: the index of this image, from 0, among the copies of its source, or among the images of its class if it
      has no source.
    - `strength`: the fraction of denoising steps that run; None if the method denoises nothing.
    - `label`, `class_name`: the image's class, or the heaviest class if the label is soft.
    - `source`: the source's key inside its class; None if there is no source.
    - `source_class`: the source's class if that differs from `class_name`, else None.
    - `partners`: the positions of further real images that the new image is made from.
    - `sources`: all real images that the new image is made from, each as `class/key`: the source, then the
      partners.
    - `soft_label`: the image's classes with their weights, the heaviest first; empty if the label is not soft.
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
        """The seed of this item's random stream for a `purpose`, derived from the study's `seed`."""
        return image_seed(seed, self.source_class or self.class_name, self.source or "", self.copy, purpose)
