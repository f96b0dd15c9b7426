r"""Do features of the generator itself (`encoder=generator`) know the classes of few images better than those of other encoders?

    python experiments/studies/generator_features.py digits
    python experiments/studies/generator_features.py weak_generator --folder /work/tmp/conditions
    python experiments/studies/generator_features.py signs_single --people /work/tmp/sign_people \
        --pipelines /work/tmp/sign_generators

The conditions are those of conditions.py. For each of ten draws of the training images, each validation image is given the class
of the nearest class prototype, in features of the guide, of EfficientNet-Lite0, and of the generator, at several noise levels,
averaged over 1 and 4 x 4 cells; and, as a control, in its pixels. Accuracies are kept in
`experiments/results/generator_features.csv`; the same command goes on after a stop, and writes the page about all conditions
that are complete. A condition takes a few minutes.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

import numpy as np
import torch
from appending import append, read
from conditions import CONDITIONS, add_places, keys_of, places_of
from draw_by_draw import RESULTS, ROOT, VALIDATION
from strength_by_agreement import shown
from torch.nn import functional as F

from distdiff.caching.stages import StageCache
from distdiff.classification.training import few_shot_training_set
from distdiff.commands.configuration import configure
from distdiff.data.datasets import load_dataset
from distdiff.expansion.assembly import Assembly
from distdiff.expansion.generators import Generators
from distdiff.prototypes.fitting import image_features
from distdiff.study.statistics import paired_difference, simultaneous

LEVELS, POOL_SIZES = (0.02, 0.1, 0.25, 0.45, 0.7), (1, 4)
SEEDS = range(1000, 1010)
GUIDE, LITE0, PIXELS = "the guide", "EfficientNet-Lite0", "pixels"
OWN = {
    f"generator, noise level {level}, {size} x {size}": [
        *("encoder=generator", f"encoder.noise_level={level}", f"encoder.pool_size={size}")
    ]
    for size in POOL_SIZES
    for level in LEVELS
}
FEATURES = {GUIDE: ["encoder=guide"], LITE0: ["encoder=efficientnet_lite0"], PIXELS: []} | OWN
COLUMNS = ("condition", "seed", "features", "accuracy")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("condition", choices=CONDITIONS)
    parser.add_argument("--out", type=Path, default=ROOT / "outputs/generator_features")
    parser.add_argument("--results", type=Path, default=RESULTS, help="where the table and the page are")
    add_places(parser)
    options = parser.parse_args()
    keys = keys_of(options.condition, places_of(options.condition, options, parser))
    options.results.mkdir(parents=True, exist_ok=True)
    table = options.results / "generator_features.csv"
    done = {(line["seed"], line["features"]) for line in read(table) if line["condition"] == options.condition}
    generators = Generators()
    for seed in SEEDS:
        wanted = [title for title in FEATURES if (str(seed), title) not in done]
        found = accuracies(wanted, [*keys, f"seed={seed}", f"paths.output_dir='{options.out}'"], seed, generators)
        append(table, COLUMNS, (line(options.condition, seed, *each) for each in found))
    (options.results / "generator_features.md").write_text(page(table), encoding="utf-8")


def line(condition: str, seed: int, features: str, accuracy: float) -> dict[str, object]:
    return dict(zip(COLUMNS, (condition, seed, features, round(accuracy, 4)), strict=True))


@torch.no_grad()
def accuracies(
    wanted: Sequence[str], keys: Sequence[str], seed: int, generators: Generators
) -> list[tuple[str, float]]:
    """(features, accuracy on validation images) of the features that are `wanted`, for one draw of the training images."""
    found = []
    for title in wanted:
        config = configure("run", [*keys, *FEATURES[title], VALIDATION, "guidance=none", "logger=none"])
        splits = load_dataset(config.dataset)
        data = few_shot_training_set(config, splits.train, seed)
        size, fit = config.generator.resolution, data.fit
        both = (data.parts[0], splits.validation)
        if title == PIXELS:
            real, held = (F.normalize(of.tensors(size, fit).flatten(1) - 0.5, dim=1) for of in both)
        else:
            encoders = Assembly(config, StageCache(config.paths.cache_dir), generators).encoders
            φ = encoders.encoder(data, seed, f"seed {seed}: guide")
            real, held = (image_features(of, φ, size, fit) for of in both)
        found.append((title, recognised(real, both[0].labels, held, both[1].labels)))
    return found


def recognised(real: torch.Tensor, classes: np.ndarray, held: torch.Tensor, held_classes: np.ndarray) -> float:
    """How many of the features `held` (M, D) are nearest to the prototype of their class, the mean of its features in `real`."""
    known = np.unique(classes)
    prototypes = torch.stack([real[torch.from_numpy(classes == label)].mean(0) for label in known])
    nearest = (held @ F.normalize(prototypes, dim=1).T).argmax(1)
    return float(np.mean(known[nearest.numpy()] == held_classes))


def page(table: Path) -> str:
    """The page about all conditions of which every draw is there."""
    found = {(line["condition"], line["features"], line["seed"]): float(line["accuracy"]) for line in read(table)}
    complete = {
        name: {features: [found[name, features, str(seed)] for seed in SEEDS] for features in FEATURES}
        for name in CONDITIONS
        if all((name, features, str(seed)) in found for features in FEATURES for seed in SEEDS)
    }
    recognition = ["| features | " + " | ".join(CONDITIONS[name].title for name in complete) + " |"]
    recognition.append("|---" * (len(complete) + 1) + "|")
    for features in FEATURES:
        recognition.append(
            f"| {features} | " + " | ".join(f"{fmean(of[features]):.3f}" for of in complete.values()) + " |"
        )
    differences = [
        "| condition | best of the generator's | minus the guide | minus EfficientNet-Lite0 | minus pixels |",
        "|---" * 5 + "|",
    ]
    confidence = simultaneous(3 * len(complete))
    for name, of in complete.items():
        best = max(OWN, key=lambda features: fmean(of[features]))
        cells = [shown(paired_difference(of[best], of[title], confidence)) for title in (GUIDE, LITE0, PIXELS)]
        own = best.removeprefix("generator, ")
        differences.append(f"| {CONDITIONS[name].title} | {own} | " + " | ".join(cells) + " |")
    newline = "\n"
    return f"""# Features of the generator itself

`encoder=generator` takes φ from the middle of the generator's denoising network, so it needs no further model. How well do its
features know the classes of a few images? Accuracy of the nearest class prototype on validation images, mean of {len(SEEDS)}
draws of the training images ([script](../studies/generator_features.py), [each draw](generator_features.csv)):

{newline.join(recognition)}

The best row of the generator's, paired by draw. It is the best of {len(OWN)} on the same images, so that the differences are
too high. The {3 * len(complete)} intervals hold together with 95 %.

{newline.join(differences)}
"""


if __name__ == "__main__":
    main()
