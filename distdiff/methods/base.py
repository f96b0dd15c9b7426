"""What a method is: how one new image comes to be, from no, one or several real images, with a label that may be soft.

To add one: a file here with a subclass of `Method`, and a YAML file in `conf/method` that names it.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from distdiff.data.soft_labels import SoftLabel
from distdiff.methods.item import WorkItem
from distdiff.methods.sources import Sources
from distdiff.methods.synthesis import Synthesizer


class Method(ABC):
    """Plans which real images a new one is made of, and builds what makes it.

    Its keys in `conf/method` are the keyword-only arguments of its constructor. What it needs are the arguments of its
    `synthesizer`, by name (see there). What it plans for an image depends on that image's own seed alone, so that a larger
    factor only adds images.

    - `num_sources`: how many real images a new one is made of. With 0 a class gets as many images as another method would
      make of its sources.
    - `keeps_class`: the heaviest class of a new image is always that of its source.
    - `columns`: the metadata columns that it brings, by name, with their types: `str`, `int`, `float`, `bool`, or a list of
      one of these, `list[str]`. Columns that it does not declare have the type of their values.
    - `group_size`: None for a method that makes every image by itself. A number: all copies of a source are made together,
      at most so many in one batch, on one rank, and again as a whole where only some of them were saved.
    """

    num_sources: ClassVar[int] = 1
    keeps_class: ClassVar[bool] = True
    columns: ClassVar[Mapping[str, Any]] = {}
    group_size: int | None = None

    @property
    def together(self) -> bool:
        """Whether copies of a source depend on each other."""
        return self.group_size is not None

    def strength(self, planned: float) -> float | None:
        """The strength of an image for which `expansion.strength` gives `planned`; None where nothing is denoised."""
        return planned

    def partners(self, item: WorkItem, sources: Sources, seed: int) -> tuple[int, ...]:
        """Positions of the real images besides its source that a new image is made of.

        By default `num_sources` − 1 different ones of the source's class, drawn by the item's own seed; some of them twice, or
        the source itself, where the class is too small.
        """
        wanted = self.num_sources - 1
        if wanted < 1:
            return ()
        own = sources.of_class(sources.labels[item.position])
        others = own[own != item.position] if len(own) > 1 else own
        rng = np.random.default_rng(item.seed_for(seed, "partner"))
        return tuple(map(int, rng.choice(others, wanted, replace=len(others) < wanted)))

    def label(self, item: WorkItem, sources: Sources, seed: int) -> SoftLabel:
        """The classes of a new image with their weights, the heaviest first; `item` has its partners.

        Empty, the default: its source's class alone.
        """
        return ()

    @abstractmethod
    def synthesizer(self, *materials: Any) -> Synthesizer:
        """Builds what makes the images. A method names what it needs of these as arguments:

        - `seed` (int): the study's.
        - `squares` (`Squares`): the real images as squares of the generator's resolution, (H, W, 3) uint8 each.
        - `generator` (`LatentDiffusion`), `prompts` (`Prompts`): of each class, as the generator's text encoders give them.
        - `latents` (`Latents`): the autoencoder's posterior of each real image.
        - `guidance` (`Guidance`): what the `guidance` keys build.
        - `image_energy` (`ImageEnergy`): the energy of images, with φ and what it needs of the real images.
        - `policy` (`nn.Module`): the augmentation policy that its key `policy` names.
        """
