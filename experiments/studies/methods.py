"""Every method, guidance and selection on the digits, at equal counts; the control that DistDiff's paper lacks; an ablation.

    python experiments/studies/methods.py methods
    python experiments/studies/methods.py control
    python experiments/studies/methods.py spread
    python experiments/studies/methods.py second_round
    python experiments/studies/methods.py generator_features
    python experiments/studies/methods.py ensemble
    python experiments/studies/methods.py ablation
    python experiments/studies/methods.py ink --folder /work/tmp/conditions
    python experiments/studies/methods.py weak_generator --folder /work/tmp/conditions
    python experiments/studies/methods.py shots_10
    python experiments/studies/methods.py shots_50 --seeds 3
    python experiments/studies/methods.py methods --seeds 4 --processes 1

Ten draws of two training images a class, five copies of each, published or documented strengths, accuracies on validation
images, since test images are for final figures. `control` has `transform` from its random start, without (ρ = 0) and with
(ρ = 10) its gradient step, for several ε. `spread` follows what gained most in `methods`, guidance towards uncertain images and
selection by coverage: with other strengths, with more candidates, and both together; and, since candidates cost as much as
images, with as many unguided images as candidates. `second_round` has the same with a guide that has learnt from a first round of
unguided images too, `generator_features` guidance and selections with features of the generator itself, and `ensemble` with a
guide of five members. `ablation` takes `guidance=direct` apart, at a strength that has an effect: prototypes, energy, ρ and the
guided steps, with five training images a class and two copies of each.
`ink`, `weak_generator`, `shots_10` and `shots_50` ask whether guidance or selection pays under other conditions: where the style
of the images is not the generator's, where its denoiser has learnt less (other_conditions.py makes both), and with 10 or 50
training images a class, of which 2 copies and 1 are made. Two draws of 50 images a class share most of their images, so the
intervals of `shots_50` are too narrow.
`ablation` and these four each have a table of their own, all others take their runs from
`experiments/results/methods_digits.csv`, and the same command goes on after a stop. With all runs there, it writes a page, its
figures and a grid of images beside the table.
`selection=clip` is not among the rows: it needs CLIP's weights.
"""

import argparse
import csv
import json
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, median

import pyarrow.parquet
from draw_by_draw import FIRST_SEED, RESULTS, ROOT, VALIDATION, conclusions, place_of, save_figures, study, written
from PIL import Image

from distdiff.expansion.naming import PLUS
from distdiff.grids import captioned, grid
from distdiff.study.statistics import paired_difference, simultaneous

UNGUIDED = "none"
PROTOCOL = ["dataset.per_class=2", "expansion.factor=5", "study.tune_steps=[200,600]"]
GUIDANCES = (
    *("none", "direct", "transform", "transform_official", "mpgd", "freedom", "tfg"),
    *("chamfer", "modes", "deviation", "particles", "feedback", "gif"),
)
METHODS = ("real_guidance", "interpolation", "text2img", "mix")
SELECTIONS = ("covariance", "coverage", "nearest_real", "energy", "consistency")
ROWS = ("original", "randaugment", *GUIDANCES, *METHODS, *(f"none+{name}" for name in SELECTIONS))
FURTHER = {"hard": ["guidance=none", "expansion.sources=hard"]}
EPSILONS, RHOS = (0.05, 0.1, 0.2, 0.4, 0.8), (0, 10)
CONTROL = {
    f"epsilon_{epsilon}_rho_{rho}": [
        *("guidance=transform", "guidance.init=random"),
        *(f"guidance.epsilon={epsilon}", f"guidance.rho={rho}"),
    ]
    for epsilon in EPSILONS
    for rho in RHOS
}
SPREAD = {
    "coverage_of_4": ["guidance=none", "selection=coverage", "selection.ratio=4"],
    "feedback_coverage": ["guidance=feedback", "selection=coverage"],
    "feedback_0.06": ["guidance=feedback", "guidance.rho=0.06"],
    "feedback_0.1": ["guidance=feedback", "guidance.rho=0.1"],
    "feedback_loss": ["guidance=feedback", "guidance.criterion=loss"],
    "particles_coverage": ["guidance=particles", "selection=coverage"],
    "none_10_copies": ["guidance=none", "expansion.factor=10"],
    "none_20_copies": ["guidance=none", "expansion.factor=20"],
}
BETTER_GUIDE = ["encoder.guide.copies=5", "encoder.guide.steps=600"]
SECOND_ROUND = {
    name: [*keys, *BETTER_GUIDE]
    for name, keys in {
        "second_direct": ["guidance=direct", "guidance.rho=1"],
        "second_feedback": ["guidance=feedback"],
        "second_coverage": ["guidance=none", "selection=coverage"],
        "second_consistency": ["guidance=none", "selection=consistency"],
        "second_feedback_coverage": ["guidance=feedback", "selection=coverage"],
    }.items()
}
OF_GENERATOR = ["encoder=generator"]
GENERATOR_FEATURES = {
    "generator_direct_3": [*OF_GENERATOR, "guidance=direct", "guidance.rho=3"],
    "generator_direct_10": [*OF_GENERATOR, "guidance=direct", "guidance.rho=10"],
    "generator_feedback": [*OF_GENERATOR, "guidance=feedback"],
    "generator_coverage": [*OF_GENERATOR, "guidance=none", "selection=coverage"],
    "generator_consistency": [*OF_GENERATOR, "guidance=none", "selection=consistency"],
}
STRONG = ["guidance=direct", "guidance.rho=1"]
OF_FIVE = ["encoder.guide.members=5"]
ENSEMBLE = {
    "five_direct": [*OF_FIVE, *STRONG],
    "five_feedback": [*OF_FIVE, "guidance=feedback"],
    "five_coverage": [*OF_FIVE, "guidance=none", "selection=coverage"],
    "five_consistency": [*OF_FIVE, "guidance=none", "selection=consistency"],
    "five_feedback_coverage": [*OF_FIVE, "guidance=feedback", "selection=coverage"],
}
ABLATION = {  # the first row, and then what is changed in it
    "strong": STRONG,
    "class_only": [*STRONG, "prototype=class_only"],
    "group_only": [*STRONG, "prototype=group_only"],
    **{f"{number}_groups": [*STRONG, f"prototype.num_groups={number}"] for number in (1, 2, 5)},
    **{f"energy_{name}": [*STRONG, f"energy={name}"] for name in ("exemplar", "margin")},
    **{f"rho_{rho}": ["guidance=direct", f"guidance.rho={rho}"] for rho in (0.3, 3)},
    **{f"P_{period}": [*STRONG, f"guidance.period={period}"] for period in (1, 10)},
    **{f"M_{start}": [*STRONG, f"guidance.start_step={start}"] for start in (6, 24)},
}
FOLDER = "<folder>"  # in keys: the folder of other_conditions.py
CONDITION_ROWS = ("original", "none", "direct", "feedback", "none+coverage", "feedback+coverage")
CONDITION_MORE = {  # unguided images nearer to their sources, and a stronger pull
    **{f"none_{strength}": ["guidance=none", f"expansion.strength={strength}"] for strength in (0.5, 0.7)},
    "direct_1": ["guidance=direct", "guidance.rho=1"],
}


@dataclass(frozen=True)
class Study:
    """What a study compares: rows by their names in `study.methods`, and `further` ones by their overrides.

    `protocol` are the keys of all its rows, and `seeds` is the number of draws. Studies with one `stem` share a table.
    """

    title: str
    rows: Sequence[str]
    further: Mapping[str, Sequence[str]]
    stem: str = "methods_digits"
    protocol: Sequence[str] = tuple(PROTOCOL)
    seeds: int = 10


def under_conditions(title: str, name: str, *protocol: str, copies: int = 5, steps: str = "[200,600]") -> Study:
    """A study of the same rows under other conditions. One more row has as many unguided images as a selection has candidates."""
    more = {f"none_{2 * copies}_copies": ["guidance=none", f"expansion.factor={2 * copies}"]}
    keys = (*protocol, f"expansion.factor={copies}", f"study.tune_steps={steps}")
    return Study(title, CONDITION_ROWS, CONDITION_MORE | more, f"methods_digits_{name}", keys)


STUDIES = {
    "methods": Study("Digits, 2 images a class: all methods, guidances and selections", ROWS, FURTHER),
    "control": Study(
        "Digits, 2 images a class: transform with and without its gradient step", [UNGUIDED], CONTROL, seeds=5
    ),
    "spread": Study(
        "Digits, 2 images a class: images that are spread out", [UNGUIDED, "feedback", "none+coverage"], SPREAD
    ),
    "second_round": Study(
        "Digits, 2 images a class: a guide that has learnt from unguided images too",
        [UNGUIDED, "feedback", "none+coverage", "none+consistency"],
        SECOND_ROUND,
    ),
    "generator_features": Study(
        "Digits, 2 images a class: features of the generator itself",
        [UNGUIDED, "direct", "feedback", "none+coverage", "none+consistency"],
        GENERATOR_FEATURES,
    ),
    "ensemble": Study(
        "Digits, 2 images a class: a guide of five members",
        [UNGUIDED, "feedback", "none+coverage", "none+consistency"],
        {"direct_1": STRONG, "feedback_coverage": SPREAD["feedback_coverage"], **ENSEMBLE},
    ),
    "ablation": Study(
        "Digits, 5 images a class: what each part of the guidance does",
        [UNGUIDED],
        ABLATION,
        "methods_digits_ablation",
        ("dataset.per_class=5", "expansion.factor=2", "train.steps=600", "measure.features=[judge,guide]"),
        seeds=5,
    ),
    "ink": under_conditions(
        "Digits in blue ink on cream paper, 2 images a class",
        "ink",
        *(
            "dataset=imagefolder",
            f"dataset.root='{FOLDER}/ink'",
            "dataset.image_size=32",
            "dataset.horizontal_flip=false",
        ),
        *("dataset.prompt_template='a photo of the digit {}.'", "dataset.subject=digits", "dataset.per_class=2"),
    ),
    "weak_generator": under_conditions(
        "Digits, 2 images a class, and a denoiser with a tenth of the training steps",
        "weak_generator",
        *(f"generator.model='{FOLDER}/weak_generator/pipeline'", "dataset.per_class=2"),
    ),
    "shots_10": under_conditions(
        "Digits, 10 images a class", "shots_10", "dataset.per_class=10", copies=2, steps="[600,2000]"
    ),
    "shots_50": under_conditions(
        "Digits, 50 images a class", "shots_50", "dataset.per_class=50", copies=1, steps="[600,2000]"
    ),
}
FIGURES = ("Accuracy of each row", "Differences in accuracy", "coloured by accuracy")  # of the report, by their titles
COLUMNS = 8  # of the grid: images of different classes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("study", choices=STUDIES)
    parser.add_argument(
        "--seeds", type=int, help="draws of the training images; by default as many as in the committed page"
    )
    parser.add_argument("--processes", type=int, default=2, help="draws at a time, with a thread each")
    parser.add_argument("--out", type=Path, default=ROOT / "outputs/methods")
    parser.add_argument("--results", type=Path, default=RESULTS, help="where the table and the page are")
    parser.add_argument("--folder", type=Path, help="the folder of other_conditions.py")
    parser.add_argument("--rows", nargs="+", help="only these rows, to try the script")
    parser.add_argument("--keys", nargs="+", default=[], help="further overrides, to try the script")
    options = parser.parse_args()
    keys = [*keys_of(options.study, options.rows), *options.keys]
    folder = None if options.folder is None else options.folder.resolve()
    if folder is None and any(FOLDER in key for key in keys):
        parser.error(f"{options.study} needs --folder")
    chosen = STUDIES[options.study]
    seeds = range(FIRST_SEED, FIRST_SEED + (options.seeds or chosen.seeds))
    options.results.mkdir(parents=True, exist_ok=True)
    table = options.results.resolve() / f"{chosen.stem}.csv"
    placed = [key.replace(FOLDER, str(folder)) for key in keys]
    said = study(placed, table, seeds, options.out.resolve(), options.study, options.processes)
    write_page(options.study, keys, said, options.results, len(seeds))


def keys_of(name: str, only: Sequence[str] | None = None) -> list[str]:
    """The keys of a study; with the rows `only`, or all."""
    chosen = STUDIES[name]
    rows = [row for row in chosen.rows if only is None or row in only]
    further = {row: keys for row, keys in chosen.further.items() if only is None or row in only}
    named = [f"study.methods=[{','.join(rows)}]", *([f"study.rows={written(further)}"] if further else [])]
    return [*chosen.protocol, VALIDATION, *named]


def write_page(name: str, keys: Sequence[str], said: str, folder: Path, draws: int) -> None:
    """Writes what the study found to `folder`: a page, figures, and a grid of images."""
    chosen = STUDIES[name]
    stem = "methods_digits" if name == "methods" else f"methods_digits_{name}"
    results = json.loads(place_of(said, "results").read_text(encoding="utf-8"))
    with open(place_of(said, "results").with_suffix(".csv"), newline="", encoding="utf-8") as file:
        runs = list(csv.DictReader(file))
    shown = [*save_figures(said, folder / stem, *FIGURES)]
    if (sheet := sheet_of(results["rows"])) is not None:
        sheet.quantize(256).save(folder / f"{stem}.png", optimize=True)
        shown.append(f"![the first copy of the first source of each class, in each row]({stem}.png)")
    more: list[str] = []
    if name == "control":
        more = ["## With the gradient step, minus without it", "", *twin_table(results["rows"]), "", ""]
    elif name == "ablation":
        more = ["## What guides, and what does not", "", *two_features_table(results["rows"]), "", ""]
    given = "" if draws == chosen.seeds else f" --seeds {draws}"
    given += f" --folder {FOLDER}" if any(FOLDER in key for key in keys) else ""
    left_out = "" if name != "methods" else "\n`selection=clip` is not among the rows, since it needs CLIP's weights.\n"
    text = f"""# {chosen.title}

`python experiments/studies/methods.py {name}{given}`; every run is in [this table]({chosen.stem}.csv). It is `experiments/run.py`
with these keys and the data seeds from {FIRST_SEED} on:

```
{shlex.join(keys)}
```

{left_out}
```
{chr(10).join(conclusions(said))}
```

{chr(10).join(more)}## Cost

Seconds are medians over the draws, with one thread on a machine with other work; the ratio is the median of the ratios to
`none` in the same draw. What is done once and not for each image (training a guide, inverting the real images) is left out.
Rows with a selection share their candidates and are not listed: an image costs what `selection.ratio` (2) images of `none` cost,
and up to `selection.max_ratio` (4) with `consistency`. Batches hold 100 images, but only the copies of one source where these
are made together.

{chr(10).join(cost_table(runs))}

## Figures

Fidelity and diversity are measured in features of the judge, which guided nothing. Names stand beside the most accurate rows
only; the table above has all.

{chr(10).join(shown)}
"""
    (folder / f"{stem}.md").write_text(text, encoding="utf-8")


def cost_table(runs: Sequence[Mapping[str, str]]) -> Iterator[str]:
    """The seconds of an image of each row that keeps all of its images, and their ratio to those of `none`."""
    seconds: dict[str, dict[str, float]] = {}
    for run in runs:
        if run.get("images_per_second") and PLUS not in run["method"]:
            seconds.setdefault(run["method"], {})[run["seed"]] = 1 / float(run["images_per_second"])
    unguided = seconds.get(UNGUIDED, {})
    yield "| row | seconds an image | of `none` |"
    yield "|---|---|---|"
    for row, of_seeds in seconds.items():
        ratios = [value / unguided[seed] for seed, value in of_seeds.items() if seed in unguided]
        yield f"| `{row}` | {median(of_seeds.values()):.3f} | {f'{median(ratios):.2f}' if ratios else '–'} |"


def twin_table(rows: Sequence[Mapping]) -> Iterator[str]:
    """The difference that the gradient step makes at each ε, with intervals that hold together with 95 %."""
    accuracies = {row["method"]: row["accuracy"] for row in rows}
    twins = {
        epsilon: [f"epsilon_{epsilon}_rho_{rho}" for rho in reversed(RHOS)]
        for epsilon in EPSILONS
        if all(f"epsilon_{epsilon}_rho_{rho}" in accuracies for rho in RHOS)
    }
    yield "| ε | ρ = 10 | ρ = 0 | difference | simultaneous 95 % interval |"
    yield "|---|---|---|---|---|"
    for epsilon, (guided, start) in twins.items():
        values = accuracies[guided], accuracies[start]
        found = paired_difference(*values, simultaneous(len(twins)))
        ends = "–" if found.interval is None else f"[{found.low:+.3f}, {found.high:+.3f}]"
        yield f"| {epsilon} | {fmean(values[0]):.3f} | {fmean(values[1]):.3f} | {found.mean:+.3f} | {ends} |"


def two_features_table(rows: Sequence[Mapping]) -> Iterator[str]:
    """Values against the real images in the features that guide and in those of the judge, as means over the draws."""
    columns = [(features, metric) for metric in ("kernel_distance", "diversity") for features in ("guide", "judge")]
    yield (
        "| row | accuracy | label consistency | "
        + " | ".join(f"{name.replace('_', ' ')}, {of}" for of, name in columns)
        + " |"
    )
    yield "|---" * (3 + len(columns)) + "|"
    for row in rows:
        values = [row["measures"][features]["training"]["values"] for features, _ in columns]
        shown = [f"{of[name]:.3g}" for of, (_, name) in zip(values, columns, strict=True)]
        yield f"| `{row['method']}` | {fmean(row['accuracy']):.3f} | {values[1]['label_consistency']:.3f} | {' | '.join(shown)} |"


def sheet_of(rows: Sequence[Mapping]) -> Image.Image | None:
    """A line of images for each row, of the first classes under the first data seed; None without images on this machine."""
    found = {
        row["method"]: first_images(Path(next(filter(None, row["expanded"])))) for row in rows if any(row["expanded"])
    }
    if not found:
        return None
    classes = sorted({name for of_row in found.values() for name in of_row})[:COLUMNS]
    side = next(iter(next(iter(found.values())).values())).size
    blank = Image.new("RGB", side, "white")
    tiles = grid([of_row.get(name, blank) for of_row in found.values() for name in classes], len(classes))
    return captioned(tiles, classes, list(found))


def first_images(directory: Path) -> dict[str, Image.Image]:
    """The image of each class with the first source and, of these, the smallest copy number."""
    columns = ["file_name", "class_name", "source", "copy"]
    entries = pyarrow.parquet.read_table(directory / "metadata.parquet", columns=columns).to_pylist()
    found: dict[str, Image.Image] = {}
    for entry in sorted(entries, key=lambda entry: (entry["source"] or "", entry["copy"])):
        if entry["class_name"] not in found:
            with Image.open(directory / entry["file_name"]) as image:
                found[entry["class_name"]] = image.convert("RGB")
    return found


if __name__ == "__main__":
    main()
