"""What a study has found, in sentences."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product

from distdiff.study.comparisons import Comparison, best_baseline
from distdiff.study.methods import BASELINES, ORIGINAL, best_of
from distdiff.study.runs import MethodResult, differ
from distdiff.wording import counted, some

IN_WORDS = {
    ORIGINAL: "the original images alone",
    BASELINES[1]: "the original images alone, trained on as is best for them",
    BASELINES[2]: "the original images with RandAugment copies, trained on as is best for them",
}
OPTIMISTIC = (
    "are those of the best check on these very images (train.selection=best_on_test), as in published protocols: "
    "too high an estimate for new images."
)


@dataclass(frozen=True)
class Findings:
    """The findings of a study, one sentence each: expansion against the best baseline, and guidance against no guidance.

    They compare two rows that both have the settings that are best for them or, failing that, two rows of which neither has.
    If only one has, a further sentence says so. `rows` and `comparisons` are by name, `chosen` is the row of the job's keys,
    and `unguided` is the one without guidance. `searched` are the rows with settings that were chosen on validation images,
    and `design` says in words what varies between the runs of a row.
    """

    rows: Mapping[str, MethodResult]
    comparisons: Mapping[tuple[str, str], Comparison]
    chosen: str
    unguided: str
    searched: Sequence[str]
    design: str

    def __iter__(self) -> Iterator[str]:
        yield from self._about_expansion()
        yield from self._about_guidance()

    @property
    def _plain(self) -> str:
        """The row that the findings are about, without `_best`: that of the job's keys, or else the unguided one."""
        return self.rows[self.chosen].images if self.chosen in self.rows else self.unguided

    def _about_expansion(self) -> Iterator[str]:
        if (baseline := self.rows.get(best_baseline(list(self.rows.values())))) is None:
            return
        plain, best = self._plain, best_of(self._plain)
        rows = (best, plain) if baseline.best else (plain, best)
        if (compared := self._first((row, baseline.method) for row in rows)) is not None:
            yield self._finding(f"Expansion with {compared.method!r}", compared, self._in_words(baseline))
            yield from self._unequal_terms(compared)

    def _about_guidance(self) -> Iterator[str]:
        if self._plain == self.unguided:
            return
        guided, unguided = ((best_of(name), name) for name in (self._plain, self.unguided))
        alike = list(zip(guided, unguided, strict=True))
        if (compared := self._first([*alike, *product(guided, unguided)])) is not None:
            which = f" ({compared.baseline})" if self.rows[compared.baseline].best else ""
            yield self._finding(f"Guidance {compared.method!r}", compared, f"unguided expansion{which}")
            yield from self._unequal_terms(compared)

    def _first(self, wanted: Iterable[tuple[str, str]]) -> Comparison | None:
        return next((self.comparisons[pair] for pair in wanted if pair in self.comparisons), None)

    def _unequal_terms(self, compared: Comparison) -> Iterator[str]:
        """A sentence if only one of two rows was trained with the settings that are best for it, and they differ."""
        rows = [self.rows[compared.method], self.rows[compared.baseline]]
        better, other = sorted(rows, key=lambda row: not row.best)
        have_steps = other.method in self.searched  # study.tune_steps: every row has those that are best for it
        settings = ["classifier", "augmentation", *([] if have_steps else ["steps"])]
        if better.best and not other.best and differ(better, other, settings):
            what = "Network and augmentation" if have_steps else "Network, augmentation and steps"
            yield (
                f"{what} were chosen for {better.method} on validation images, but not for {other.method}: "
                f"add {best_of(other.base)} to study.methods to compare them on equal terms."
            )

    def _in_words(self, baseline: MethodResult) -> str:
        present = [row.method for base in BASELINES for row in self.rows.values() if row.base == base]
        if len(present) == 1:
            return IN_WORDS[baseline.base]
        return f"{baseline.method}, on validation images the best of {some(present)}"

    def _finding(self, subject: str, compared: Comparison, baseline: str) -> str:
        mean = f"{compared.mean:+.3f}"
        if compared.difference.lacks_spread:
            return f"{subject}: {mean} accuracy against {baseline} in each of {self.design}. Without spread there is no interval."
        if compared.simultaneous is None:
            return f"{subject}: {mean} accuracy against {baseline}, from {self.design}, so nothing is settled."
        interval = f"{mean} [{compared.simultaneous.low:+.3f}, {compared.simultaneous.high:+.3f}]"
        settled = "helped" if compared.mean > 0 else "hurt"
        verb = settled if compared.settled else "did not measurably help here"
        together = f"95 % simultaneous over {counted(len(self.comparisons), 'difference')}"
        return f"{subject} {verb}: {interval} accuracy against {baseline} ({self.design}; {together})."
