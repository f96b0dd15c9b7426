"""The usual names of splits, of folders, of tables and in a column of metadata."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from distdiff.data.splits.carving import TEST, TRAIN, VALIDATION

USUAL_NAMES = {  # the first of several that a dataset has is used
    TRAIN: ("train", "training"),
    VALIDATION: ("validation", "valid", "val", "dev", "development"),
    TEST: ("test", "testing", "eval", "evaluation", "holdout", "heldout"),
}
TABLE_NAMES = {split: USUAL_NAMES[split] for split in (VALIDATION, TEST, TRAIN)}
SPLIT_OF = {name: split for split, names in USUAL_NAMES.items() for name in names}
ORDER = list(SPLIT_OF)
BETWEEN, ENDINGS = re.compile(r"[-_. ]+"), re.compile(r"(?<=.)(dataset|set|data|images|split)$")


@dataclass(frozen=True)
class SplitNames:
    """Which split a name stands for. `given` maps names that the configuration gives to splits, and wins.

    >>> names = SplitNames({"trn": "train"})
    >>> names.of("TRN"), names.of("training_set"), names.of("Hold-out"), names.of("cat")
    ('train', 'train', 'test', None)
    """

    given: Mapping[str, str] = field(default_factory=dict)

    def of(self, name: str) -> str | None:
        """The split that `name` stands for, in upper or lower case, or None."""
        return self.given.get(name.lower()) or SPLIT_OF.get(_plain(name))

    def rank(self, name: str) -> tuple[bool, int, str]:
        """Sorts the names of one split: the given one first, then the most usual one."""
        plain = _plain(name)
        return name.lower() not in self.given, ORDER.index(plain) if plain in SPLIT_OF else 0, name

    def hinted(self, name: str) -> str | None:
        """The split of the first word in `name` that is the name of a split, as in `seg_train`, or None."""
        return next((split for word in BETWEEN.split(name) if word and (split := self.of(word))), None)


def _plain(name: str) -> str:
    """A name in lower case without what people add: `training_set`, `hold-out` and `val images` have other names."""
    return ENDINGS.sub("", BETWEEN.sub("", name.lower()))
