r"""Does `tune.criterion=agreement` choose strengths that are good to train with?

    python experiments/studies/strength_by_agreement.py digits
    python experiments/studies/strength_by_agreement.py weak_generator --folder /work/tmp/conditions
    python experiments/studies/strength_by_agreement.py signs_single --people /work/tmp/sign_people \
        --pipelines /work/tmp/sign_generators

`ink` needs what `weak_generator` needs, and `signs_class` what `signs_single` needs; other_conditions.py and
sign_digits_by_people.py make these.

For each draw of the training images, unguided copies at each strength of `tune.strengths` are trained on (accuracies on
validation images), and `expand.py expansion.tune=true tune.criterion=agreement` chooses one of these strengths, without any image
but the few training images. `tune.retention` was chosen in a trial on draws 1000 to 1002 of the same conditions, so the
draws here are other ones, from 1003 on. Runs are kept in `experiments/results/strength_by_agreement_<condition>.csv`, choices in
`strength_by_agreement.csv`; the same command goes on after a stop. With a condition complete, it writes the page about all
conditions that are complete.
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from appending import append, read
from conditions import CONDITIONS, Condition, add_places, keys_of, places_of
from draw_by_draw import RESULTS, ROOT, VALIDATION, run, study, written

from distdiff.study.statistics import PairedDifference, paired_difference, simultaneous

STRENGTHS = (0.3, 0.5, 0.7, 0.85, 0.95)
CHOICES = "strength_by_agreement.csv"
COLUMNS = ("condition", "seed", "chosen", "real", *map(str, STRENGTHS))
SEEDS = range(1003, 1008)
ROWS = {f"strength_{strength}": ["guidance=none", f"expansion.strength={strength}"] for strength in STRENGTHS}
STUDY = ["study.methods=[original]", f"study.rows={written(ROWS)}", "study.tune_steps=[200,600]", VALIDATION]
TUNE = [
    *("expansion.tune=true", "tune.criterion=agreement", f"tune.strengths=[{','.join(map(str, STRENGTHS))}]"),
    *("tune.retention=0.6", "tune.images=100", "tune.folds=5"),
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("condition", choices=CONDITIONS)
    parser.add_argument("--processes", type=int, default=2, help="draws at a time, with a thread each")
    parser.add_argument("--out", type=Path, default=ROOT / "outputs/strength_by_agreement")
    parser.add_argument("--results", type=Path, default=RESULTS, help="where the tables and the page are")
    add_places(parser)
    options = parser.parse_args()
    name, condition = options.condition, CONDITIONS[options.condition]
    keys = keys_of(name, places_of(name, options, parser))
    results = options.results.resolve()
    results.mkdir(parents=True, exist_ok=True)
    out = options.out.resolve()
    study([*keys, *STUDY], table_of(results, name), SEEDS, out, name, options.processes)
    choose(name, [*keys, f"encoder={condition.encoder}"], results / CHOICES, out, options.processes)
    (results / "strength_by_agreement.md").write_text(page(results), encoding="utf-8")


def table_of(results: Path, name: str) -> Path:
    return results / f"strength_by_agreement_{name}.csv"


def choose(name: str, keys: Sequence[str], table: Path, out: Path, processes: int) -> None:
    """Lets `expand.py` choose a strength under each data seed, and appends the choices to the table."""
    done = {(line["condition"], line["seed"]) for line in read(table)}

    def one(seed: int) -> dict[str, object]:
        place = out / f"{name}-choice-{seed}"
        given = [
            *keys,
            *TUNE,
            "expansion.factor=1",
            f"seed={seed}",
            f"paths.output_dir='{out}'",
            f"hydra.run.dir='{place}'",
        ]
        run(given, out / f"{name}-choice-{seed}.log", "expand")
        record = json.loads((place / "tuning.json").read_text(encoding="utf-8"))
        kappas = {str(each["strength"]): round(each["agreement"], 4) for each in record["candidates"]}
        real = round(record["real"]["agreement"], 4)
        return {"condition": name, "seed": seed, "chosen": record["strength"], "real": real, **kappas}

    with ThreadPoolExecutor(processes) as pool:
        for line in pool.map(one, [seed for seed in SEEDS if (name, str(seed)) not in done]):
            append(table, COLUMNS, [line])


def page(results: Path) -> str:
    """The page about all conditions of which every draw is there."""
    choices = read(results / CHOICES)
    accuracies = [
        "| condition | original | " + " | ".join(map(str, STRENGTHS)) + " | **chosen** | strengths chosen |",
        "|---" * (len(STRENGTHS) + 4) + "|",
    ]
    differences = [
        "| condition | default | chosen, minus the default | best strength | chosen, minus the best |",
        "|---" * 5 + "|",
    ]
    kappas = [
        "| condition | real images | " + " | ".join(map(str, STRENGTHS)) + " |",
        "|---" * (len(STRENGTHS) + 2) + "|",
    ]
    complete = [each for name in CONDITIONS if (each := found(name, results, choices)) is not None]
    confidence = simultaneous(2 * len(complete))
    for each in complete:
        means = " | ".join(f"{fmean(values):.3f}" for values in each.accuracies.values())
        title, default = each.condition.title, str(each.condition.default)
        taken = ", ".join(strength or f"none ({default})" for strength in each.taken)
        chosen = [each.at(strength or default, place) for place, strength in enumerate(each.taken)]
        accuracies.append(f"| {title} | {means} | **{fmean(chosen):.3f}** | {taken} |")
        best = max(map(str, STRENGTHS), key=lambda strength: fmean(each.accuracies[row_of(strength)]))
        cells = [
            shown(paired_difference(chosen, each.accuracies[row_of(strength)], confidence))
            for strength in (default, best)
        ]
        differences.append(f"| {title} | {default} | {cells[0]} | {best} | {cells[1]} |")
        kappas.append(f"| {title} | " + " | ".join(f"{kappa:.2f}" for kappa in each.kappas) + " |")
    newline = "\n"
    return f"""# Strengths chosen by agreement

`expand.py expansion.tune=true tune.criterion=agreement` looks at copies of the few training images at each strength, with
features that have seen neither a copy nor its source, and takes the largest strength up to which these recognise the class of
copies at least 0.6 times as well as at the smallest (by Cohen's κ). It needs no other images and trains no classifier on
copies. The share of 0.6 was chosen in a trial on draws 1000 to 1002 of these conditions, whose tables were not kept; here are
draws {SEEDS.start} to {SEEDS.stop - 1} ([script](../studies/strength_by_agreement.py), whose commands made the tables beside this
page). Where nothing was chosen, because features recognised too little, the default strength stays: "none" in the last column.

Accuracy on validation images, mean of {len(SEEDS)} draws, of classifiers trained on the real images and unguided copies of
them (the better of 200 and 600 steps on these images):

{newline.join(accuracies)}

Differences are paired by draw, and the {2 * len(complete)} intervals hold together with 95 %. The best strength of a line is
the best of {len(STRENGTHS)} on the same images, so that its mean is too high.

{newline.join(differences)}

Cohen's κ of copies with their class, means over the draws:

{newline.join(kappas)}
"""


@dataclass(frozen=True)
class Found:
    """What was found under a condition: accuracies of rows by draw, the strengths taken, and mean κ of real images and copies."""

    condition: Condition
    accuracies: Mapping[str, Sequence[float]]
    taken: Sequence[str]
    kappas: Sequence[float]

    def at(self, strength: str, place: int) -> float:
        return self.accuracies[row_of(strength)][place]


def found(name: str, results: Path, choices: Sequence[Mapping[str, str]]) -> Found | None:
    """What the tables hold of a condition; None if something is missing."""
    own = {int(line["seed"]): line for line in choices if line["condition"] == name}
    runs = {(line["method"], int(line["seed"])): float(line["accuracy"]) for line in read(table_of(results, name))}
    rows = ("original", *ROWS)
    if not all(seed in own and (row, seed) in runs for seed in SEEDS for row in rows):
        return None
    accuracies = {row: [runs[row, seed] for seed in SEEDS] for row in rows}
    kappas = [fmean(float(own[seed][column]) for seed in SEEDS) for column in ("real", *map(str, STRENGTHS))]
    return Found(CONDITIONS[name], accuracies, [own[seed]["chosen"] for seed in SEEDS], kappas)


def row_of(strength: str) -> str:
    return f"strength_{strength}"


def shown(difference: PairedDifference) -> str:
    if difference.interval is None:
        return f"{difference.mean:+.3f}"
    return f"{difference.mean:+.3f} ± {(difference.high - difference.low) / 2:.3f}"


if __name__ == "__main__":
    main()
