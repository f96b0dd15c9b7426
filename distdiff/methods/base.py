"""The base class of methods. A method makes an image from no, one or several real images.

The image may have a soft label. To add a method, write a subclass of `Method` in a file here, and a YAML file in
`conf/method` that names the class.
"""

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from typing import Any, ClassVar

import numpy as np

from distdiff.data.soft_labels import SoftLabel
from distdiff.methods.config import LATENTS, SHOTS
from distdiff.methods.item import WorkItem
from distdiff.methods.sources import Sources
from distdiff.methods.synthesis import Synthesizer


@cache  # asked of every image of a plan
def _depends_on_shots(strength: Callable[..., float | None]) -> bool:
    """Whether a method's `strength` takes `shots`."""
    return SHOTS in inspect.signature(strength).parameters


class Method(ABC):
    """Plans which real images a new image is made from, and builds the synthesizer that makes it.

    A method's keys in `conf/method` are the keyword-only arguments of its constructor. The argument names of its
    `synthesizer` say what the method needs; the docstring of `Method.synthesizer` lists the possible names. The plan
    for an image must depend on that image's own seed alone, so that a larger factor only adds images.

    - `num_sources`: how many real images a new one is made from. If this is 0, a class gets as many images as another
      method would make from the sources of the class.
    - `keeps_class`: whether the heaviest class of a new image is always its source's class.
    - `columns`: the metadata columns that the method adds, by name, with their types: `str`, `int`, `float`, `bool`, or
      a list of one of these, such as `list[str]`. A column that is not declared gets the type of its values.
    - `group_size`: None if every image is made independently. If the copies of a source depend on each other,
      `group_size` is the largest number of copies in a batch. All copies of a source are then made on one rank, and a
      batch of which only some images were saved is made again.
    """

    num_sources: ClassVar[int] = 1
    keeps_class: ClassVar[bool] = True
    columns: ClassVar[Mapping[str, Any]] = {}
    group_size: int | None = None

    @property
    def together(self) -> bool:
        """Whether the copies of a source depend on each other."""
        return self.group_size is not None

    def strength(self, planned: float) -> float | None:
        """The strength that the method uses for an image whose planned strength, from `expansion.strength`, is `planned`.

        None if the method denoises nothing. If the method's strength depends on how many real images the class has, its
        `strength` takes the argument `shots` in the place of `planned`, and then `expansion.strength` is not read.
        """
        return planned

    def strength_for(self, planned: float, shots: int) -> float | None:
        """What `strength` returns for an image whose class has `shots` real images."""
        return self.strength(shots if _depends_on_shots(type(self).strength) else planned)

    @property
    def reads_strength(self) -> bool:
        """Whether the planned strength can change the images (`methods.config.reads_strength`, for a built method)."""
        starts_from_source = LATENTS in inspect.signature(self.synthesizer).parameters
        return starts_from_source and not _depends_on_shots(type(self).strength)

    def check(self, shots: Iterable[int], num_steps: int, counting: str) -> None:  # noqa: B027 (nothing is the default)
        """Raises `UserError` if the method cannot make images of classes with these numbers of real images.

        It is called before anything is trained. The generator has `num_steps` steps, and `counting` is the rule by which
        some of them run (`Kind.counting`). By default, nothing is refused.
        """

    def partners(self, item: WorkItem, sources: Sources, seed: int) -> tuple[int, ...]:
        """The positions of the real images that a new image is made from besides its source.

        By default, these are `num_sources` − 1 different images of the source's class, drawn by the item's own seed. If
        the class has too few images, an image may occur more than once. In a class of one image, the source itself is
        drawn.
        """
        wanted = self.num_sources - 1
        if wanted < 1:
            return ()
        own = sources.of_class(sources.labels[item.position])
        others = own[own != item.position] if len(own) > 1 else own
        rng = np.random.default_rng(item.seed_for(seed, "partner"))
        return tuple(map(int, rng.choice(others, wanted, replace=len(others) < wanted)))

    def label(self, item: WorkItem, sources: Sources, seed: int) -> SoftLabel:
        """The classes of a new image with their weights, the heaviest first; `item.partners` is already set.

        An empty result, the default, means the source's class alone.
        """
        return ()

    @abstractmethod
    def synthesizer(self, *materials: Any) -> Synthesizer:
        """Builds the synthesizer that makes the images. A subclass takes only those arguments that it needs:

        - `seed` (int): the study's seed.
        - `squares` (`Squares`): the real images as squares of the generator's resolution, (H, W, 3) uint8 each.
        - `generator` (`LatentDiffusion`): the diffusion model.
        - `prompts` (`Prompts`): the prompts of each class, embedded by the generator's text encoders.
        - `latents` (`Latents`): the autoencoder's posterior of each real image.
        - `inversions` (`Inversions`): the noise from which the generator draws each real image. The method's key
          `inversion_steps` says in how many steps it is found.
        - `guidance` (`Guidance`): the guidance method that the `guidance` keys choose.
        - `image_energy` (`ImageEnergy`): the energy of images, with φ and the prototypes or exemplars that the energy
          needs.
        - `policy` (`nn.Module`): the augmentation policy that the method's key `policy` names.
        """
