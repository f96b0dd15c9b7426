"""The portions into which a study is divided for processes that work side by side, and which of them are taken."""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from distdiff.caching.fingerprint import fingerprint
from distdiff.errors import UserError
from distdiff.expansion.adopting import made_by
from distdiff.locking import Timeout, held
from distdiff.study.plan import SeedPlan
from distdiff.study.rows import Row


@dataclass(frozen=True)
class Portion:
    """Rows that lack runs under one data seed and train on images made in the same way.

    `name` is the same in all processes.
    """

    of_seed: SeedPlan
    rows: tuple[str, ...]
    name: str


def portions_of(of_seed: SeedPlan, rows: Mapping[str, Row]) -> list[Portion]:
    """The portions of a data seed in the order of the study's rows, which are given by name.

    Rows whose images are made in the same way, but from which others may be selected, are one portion, because the second
    copies images of the first. A row without images of its own is a portion of its own.
    """
    alike: dict[str, list[str]] = {}
    for name in of_seed.lacking():
        row = rows[name]
        alike.setdefault(made_by(of_seed.jobs[row.images].ingredients) if row.expands else name, []).append(name)
    return [
        Portion(of_seed, tuple(names), f"seed{of_seed.seed}-{fingerprint({'images': images})}")
        for images, names in alike.items()
    ]


class Claims:
    """Says of each portion whether a process has it, has made it, or has failed in it, by a lock and files in `folder`.

    All processes of a study have the same `folder`. A process that dies loses its locks.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._own: dict[str, ExitStack] = {}

    def take(self, portion: Portion, patience: float = -1) -> bool:
        """Takes a portion, which `done` frees. Returns False if another process keeps it for `patience` seconds.

        With a `patience` of -1, waits for as long as another process has the portion.
        """
        holding = ExitStack()
        try:
            holding.enter_context(held(self.folder / f"{portion.name}.lock", timeout=patience))
        except Timeout:
            return False
        self._own[portion.name] = holding
        return True

    def has(self, portion: Portion) -> bool:
        """Whether this process has the portion."""
        return portion.name in self._own

    def done(self, portion: Portion) -> None:
        """Says that a portion that this process took is made."""
        self._mark(portion, "done").touch()
        self._own.pop(portion.name).close()

    def is_done(self, portion: Portion) -> bool:
        """Whether any process has made the portion."""
        return self._mark(portion, "done").exists()

    @contextmanager
    def taken_if_left(self, portion: Portion) -> Iterator[bool]:
        """Yields whether nobody has, has made or has failed in the portion; it is then made in the block. Waits for nobody.

        A portion in which the block fails is left to the first process, which `take`s it and reports the error.
        """
        if not self.take(portion, patience=0):
            yield False
            return
        try:
            is_left = not self.is_done(portion) and not self._mark(portion, "failed").exists()
            yield is_left
            if is_left:
                self._mark(portion, "done").touch()
        except UserError:
            self._mark(portion, "failed").touch()
        finally:
            self._own.pop(portion.name).close()

    def records(self, portion: Portion) -> Path:
        """The folder for what another process than the first prints and logs while it makes the portion."""
        return self.folder / portion.name

    def free(self) -> None:
        """Frees all that this process has taken, done or not."""
        while self._own:
            self._own.popitem()[1].close()

    def _mark(self, portion: Portion, kind: str) -> Path:
        return self.folder / f"{portion.name}.{kind}"
