"""Does expansion help, and does guidance? Studies with ten draws of the training images each.

    python experiments/studies/yardstick.py digits_2
    python experiments/studies/yardstick.py digits_2 --seeds 4 --processes 1
    python experiments/studies/yardstick.py digits_2_spread
    python experiments/studies/yardstick.py signs_class --data /work/tmp/sign_people --pipelines /work/tmp/sign_generators

A study takes about an hour on two cores. Each finished run is a line of `experiments/results/yardstick_<study>.csv`, and the
same command goes on after a stop. With all runs there, it writes `yardstick_<study>.md` and its figures beside the table. Every
row is trained with the number of steps that is best for it on validation images, in `signs_single_margin` and
`signs_single_guided` with 600; the rows that end in `_best` also choose their network and augmentation there. Accuracies are on
test images, except in `signs_single_margin`: it looks on validation images for a strength and a ρ at which guidance brings
back images that leave their class. `signs_single_guided` has the best of them on test images, and compares each two rows.

`digits_2_spread` and `digits_5_spread` have what was best on validation images (methods.py, `spread`): feedback guidance, a
selection by coverage, and both. `digits_2_few_spread` has both with 2 and 5 copies, where each image counts for more. In the
studies whose names end in `_best`, unguided copies too have the network, augmentation and steps that are best for them.
`signs_class_strong` and `signs_single_strong` train all rows as was best in `signs_class_best`; the first has guidances and
selections among them. Studies of the same images share a table. Those of `signs_class_best` and `signs_class_strong` are by a
generator that was pretrained anew, on another machine, and differ from those of `signs_class`. In the tables of
`signs_class_best` and of the studies on one prompt for all classes, the runs on real images alone were copied from the table
of the study with a prompt for each class, since they are the same.

The studies on signs need the photos and generators that sign_digits_by_people.py makes. Their strength was chosen on validation
images, with other draws of the training images (experiments/results/sign_digits_strength.md).
"""

import argparse
import json
import shlex
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from pathlib import Path

from draw_by_draw import FIRST_SEED, RESULTS, ROOT, VALIDATION, conclusions, place_of, save_figures, study, written
from sign_digits_by_people import prompt_keys

from distdiff.study.statistics import holm, paired_difference, simultaneous

ROWS = "original,original_best,randaugment,randaugment_best,none,transform,transform_official,direct"
TEST = ("study.split=test", "study.training_seeds=3", "study.tune_steps=[200,600]")
PROTOCOL = [
    f"study.methods=[{ROWS}]",
    *TEST,
    "study.best.classifiers=[small_cnn,small_resnet]",
]
SIGNS = [
    *("dataset=imagefolder", "dataset.image_size=32", "dataset.per_class=5", "expansion.factor=5"),
    *("generator=local", "generator.resolution=32", "generator.num_steps=25", "generator.cfg_scale=2"),
]
SCRATCH = [
    "study.methods=[original,original_best,randaugment,randaugment_best,none,direct]",
    *PROTOCOL[1:],
]
PROBE = [  # on features that are computed once, so that augmentations and other networks have no rows
    "study.methods=[original,none,direct]",
    *("classifier=efficientnet_lite0", "classifier.freeze=linear_probe"),
    *TEST,
]
SPREAD = [
    "study.methods=[original,none,feedback,none+coverage,feedback+coverage]",
    *TEST,
]
# Energies in features that were pretrained on ImageNet; the generator does not know the classes.
MARGIN = {
    **{f"none_{strength}": ["guidance=none", f"expansion.strength={strength}"] for strength in (0.4, 0.5)},
    **{
        f"margin_{rho}_{strength}": [
            *("guidance=direct", "energy=margin", f"guidance.rho={rho}", f"expansion.strength={strength}")
        ]
        for strength in (0.3, 0.4, 0.5)
        for rho in (3, 10)
    },
}
CHOSEN_MARGIN = {  # what was best of MARGIN, the same strength without guidance, and as many unguided images as cost as much
    "margin": MARGIN["margin_10_0.5"],
    "none_0.5": MARGIN["none_0.5"],
    "none_25_copies": ["guidance=none", "expansion.factor=25"],
}
BEST = [
    "study.methods=[original_best,randaugment_best,none,none_best]",
    *PROTOCOL[1:],
]
STRONG = [  # as nearly every row of `signs_class_best` is trained
    *("classifier=small_resnet", "augmentation=affine", "train.steps=600"),
    *("study.split=test", "study.training_seeds=3"),
]
TABLES = {  # of studies that share the table of another one
    "digits_2_spread": "digits_2",
    "digits_5_spread": "digits_5",
    "digits_2_best": "digits_2",
    "digits_5_best": "digits_5",
    "digits_10_best": "digits_10",
    "digits_2_few_spread": "digits_2_few",
    "signs_class_strong": "signs_class_best",
    "signs_single_strong": "signs_single",
}
UNGUIDED = ("_factors", "_best")  # ends of the names of studies without guided rows
COPIES = {2: 10, 5: 4, 10: 2}  # by the images a class: 200 images a row and data seed
STUDIES = {
    **{
        f"digits_{shots}": (
            f"Digits, {shots} images a class",
            [f"dataset.per_class={shots}", f"expansion.factor={copies}", *PROTOCOL],
        )
        for shots, copies in COPIES.items()
    },
    "digits_2_spread": (
        "Digits, 2 images a class, images that are spread out",
        ["dataset.per_class=2", "expansion.factor=10", *SPREAD],
    ),
    "digits_5_spread": (
        "Digits, 5 images a class, images that are spread out",
        ["dataset.per_class=5", "expansion.factor=4", *SPREAD],
    ),
    **{
        f"digits_{shots}_best": (
            f"Digits, {shots} images a class, the best training for each row",
            [f"dataset.per_class={shots}", f"expansion.factor={copies}", *BEST],
        )
        for shots, copies in COPIES.items()
    },
    "digits_2_few_spread": (
        "Digits, 2 images a class, few copies that are spread out",
        [
            *("dataset.per_class=2", "study.methods=[none,feedback+coverage]", "study.factors=[2,5]"),
            *TEST,
        ],
    ),
    "digits_2_factors": (
        "Digits, 2 images a class, 1 to 50 copies",
        [
            *("dataset.per_class=2", "study.methods=[original,none]", "study.factors=[1,5,10,50]"),
            *("study.split=test", "study.tune_steps=[200,600,2000]"),
        ],
    ),
    "signs_class": ("Photos of signs, a prompt for each class, trained from scratch", [*SIGNS, *SCRATCH]),
    "signs_class_best": ("Photos of signs, a prompt for each class, the best training for each row", [*SIGNS, *BEST]),
    "signs_class_strong": (
        "Photos of signs, a prompt for each class, the best training for all rows",
        [*SIGNS, "study.methods=[original,none,direct,feedback,none+coverage,feedback+coverage]", *STRONG],
    ),
    "signs_single": ("Photos of signs, one prompt for all classes, trained from scratch", [*SIGNS, *SCRATCH]),
    "signs_single_strong": (
        "Photos of signs, one prompt for all classes, the best training for all rows",
        [*SIGNS, "study.methods=[original,none,direct]", *STRONG],
    ),
    "signs_single_margin": (
        "Photos of signs, one prompt for all classes, guidance of images that leave their class, on validation images",
        [
            *SIGNS,
            *("encoder=efficientnet_lite0", "study.methods=[none]", f"study.rows={written(MARGIN)}"),
            *(VALIDATION, "study.training_seeds=2", "train.steps=600"),
        ],
    ),
    "signs_single_guided": (
        "Photos of signs, one prompt for all classes, guidance of images that leave their class",
        [
            *SIGNS,
            *("encoder=efficientnet_lite0", "study.methods=[none]", f"study.rows={written(CHOSEN_MARGIN)}"),
            *("study.split=test", "study.training_seeds=3", "train.steps=600"),
        ],
    ),
    "signs_class_probe": ("Photos of signs, a prompt for each class, a pretrained classifier", [*SIGNS, *PROBE]),
    "signs_single_probe": ("Photos of signs, one prompt for all classes, a pretrained classifier", [*SIGNS, *PROBE]),
}
STRENGTHS = {"class": 0.95, "single": 0.3}
DRAWS = 10  # by default
FIGURES = ("Accuracy of each row", "Differences in accuracy", "number of copies")  # of the report, by their titles


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("study", choices=STUDIES)
    parser.add_argument("--seeds", type=int, default=DRAWS, help="draws of the training images")
    parser.add_argument("--processes", type=int, default=2, help="draws at a time, with a thread each")
    parser.add_argument("--out", type=Path, default=ROOT / "outputs/yardstick")
    parser.add_argument("--data", type=Path, help="the folder of sign_digits_by_people.py split")
    parser.add_argument("--pipelines", type=Path, help="a folder with the pipelines class/pipeline and single/pipeline")
    options = parser.parse_args()
    table = table_of(options.study)
    keys = STUDIES[options.study][1]
    if options.study.startswith("signs"):
        if options.data is None or options.pipelines is None:
            parser.error(f"{options.study} needs --data and --pipelines")
        keys = [*keys, *sign_keys(options.study.split("_")[1], options.data, options.pipelines)]
    first = FIRST_SEED if VALIDATION in keys else 0
    said = study(keys, table, range(first, first + options.seeds), options.out, options.study, options.processes)
    write_page(options.study, keys, said, options.seeds)


def sign_keys(prompts: str, data: Path, pipelines: Path) -> list[str]:
    """The keys of the photos, of the generator that was trained with these prompts, and of the strength that suits it."""
    classes = sorted(path.name for path in (data / "study/train").iterdir())
    return [
        f"dataset.root='{data}/study'",
        *prompt_keys(prompts, classes),
        f"generator.model='{pipelines}/{prompts}/pipeline'",
        f"expansion.strength={STRENGTHS[prompts]}",
    ]


def table_of(name: str) -> Path:
    """The table of finished runs of a study; studies of the same images share one."""
    return RESULTS / f"yardstick_{TABLES.get(name, name)}.csv"


def write_page(name: str, keys: Sequence[str], said: str, draws: int) -> None:
    """Writes what the study printed at its end, and the first figures of its report, to `experiments/results/`."""
    shown = save_figures(said, RESULTS / f"yardstick_{name}", *FIGURES)
    table = table_of(name).name
    given = "" if draws == DRAWS else f" --seeds {draws}"
    if name.startswith("signs"):
        given += " --data <people> --pipelines <generators>"
    more = ""
    if name == "signs_single_guided":
        rows = json.loads(place_of(said, "results").read_text(encoding="utf-8"))["rows"]
        more = "\n".join(
            ["## Each two rows", "", *pairs_table({row["method"]: row["accuracy"] for row in rows}), "", ""]
        )
    question = "does expansion help?" if name.endswith(UNGUIDED) else "does expansion help, and does guidance?"
    text = f"""# {STUDIES[name][0]}: {question}

`python experiments/studies/yardstick.py {name}{given}`; every run is in [this table]({table}). It is
`experiments/run.py` with these keys:

```
{shlex.join(keys)}
```

```
{chr(10).join(conclusions(said))}
```

{more}{chr(10).join(shown)}
"""
    (RESULTS / f"yardstick_{name}.md").write_text(text, encoding="utf-8")


def pairs_table(accuracies: Mapping[str, Sequence[float]]) -> Iterator[str]:
    """The difference of each two rows, with intervals that hold together with 95 %, and Holm's adjusted p-values."""
    pairs = list(combinations(accuracies, 2))
    found = [paired_difference(accuracies[two], accuracies[one], simultaneous(len(pairs))) for one, two in pairs]
    yield "| rows | difference | simultaneous 95 % interval | Holm's p |"
    yield "|---|---|---|---|"
    for (one, two), difference, p in zip(pairs, found, holm([each.p_value for each in found]), strict=True):
        interval = f"[{difference.low:+.4f}, {difference.high:+.4f}]"
        yield f"| `{two}` minus `{one}` | {difference.mean:+.4f} | {interval} | {p:.3f} |"


if __name__ == "__main__":
    main()
