"""Digits and hand signs under which a question about features or strengths is asked, with good, poor and ignorant generators."""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

DIGITS = ["dataset.per_class=2", "expansion.factor=5"]
FOLDER, PEOPLE, PIPELINES = "<folder>", "<people>", "<pipelines>"
SIGNS = [
    *("dataset=imagefolder", f"dataset.root='{PEOPLE}/study'", "dataset.image_size=32", "dataset.per_class=5"),
    *(
        "expansion.factor=2",
        "generator=local",
        "generator.resolution=32",
        "generator.num_steps=25",
        "generator.cfg_scale=2",
    ),
]
HANDS = "{" + ", ".join(f"{digit}: hand" for digit in range(10)) + "}"


@dataclass(frozen=True)
class Condition:
    """The keys of a dataset and a generator; for strength_by_agreement.py, the encoder that chooses and the default strength."""

    title: str
    keys: Sequence[str]
    encoder: str = "guide"
    default: float = 0.85  # of the embedded generator


CONDITIONS = {
    "digits": Condition("digits, 2 images a class", DIGITS),
    "weak_generator": Condition(
        "the same, a denoiser with a tenth of the training",
        [*DIGITS, f"generator.model='{FOLDER}/weak_generator/pipeline'"],
    ),
    "ink": Condition(
        "the same digits in blue ink on cream paper",
        [
            *DIGITS,
            *("dataset=imagefolder", f"dataset.root='{FOLDER}/ink'", "dataset.image_size=32"),
            *(
                "dataset.horizontal_flip=false",
                "dataset.prompt_template='a photo of the digit {}.'",
                "dataset.subject=digits",
            ),
        ],
    ),
    "signs_single": Condition(
        "hand signs, 5 photos a class, a generator that does not know the classes",
        [
            *SIGNS,
            f"generator.model='{PIPELINES}/single/pipeline'",
            *("dataset.prompt_template='a photo of a {}'", f"dataset.class_names={HANDS}"),
        ],
        "efficientnet_lite0",
        0.5,  # of generator=local
    ),
    "signs_class": Condition(
        "hand signs, a generator that knows the classes",
        [
            *SIGNS,
            f"generator.model='{PIPELINES}/class/pipeline'",
            "dataset.prompt_template='a photo of a hand sign for the digit {}'",
        ],
        "efficientnet_lite0",
        0.5,
    ),
}


def add_places(parser: argparse.ArgumentParser) -> None:
    """Adds the options for the files that some conditions need."""
    parser.add_argument("--folder", type=Path, help="the folder of other_conditions.py")
    parser.add_argument("--people", type=Path, help="the photos, split by sign_digits_by_people.py")
    parser.add_argument(
        "--pipelines", type=Path, help="the folder of its generators, class/pipeline and single/pipeline"
    )


def places_of(name: str, options: argparse.Namespace, parser: argparse.ArgumentParser) -> dict[str, Path]:
    """The places that these options name, by the words that stand for them. Ends the program if the condition needs another."""
    named = {FOLDER: options.folder, PEOPLE: options.people, PIPELINES: options.pipelines}
    for word, place in named.items():
        if place is None and any(word in key for key in CONDITIONS[name].keys):
            parser.error(f"{name} needs --{word.strip('<>')}")
    return {word: place.resolve() for word, place in named.items() if place is not None}


def keys_of(name: str, places: Mapping[str, Path]) -> list[str]:
    """The keys of a condition, with the places of its files."""
    keys = list(CONDITIONS[name].keys)
    for word, place in places.items():
        keys = [key.replace(word, str(place)) for key in keys]
    return keys
