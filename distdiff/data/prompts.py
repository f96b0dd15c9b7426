"""The words that prompts use for classes, and the prompts that users write themselves."""

import csv
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from distdiff.errors import UserError, first_line
from distdiff.placeholders import placeholder
from distdiff.texts import UnreadableFile, read_text
from distdiff.wording import counted

DEFAULT_TEMPLATE = "a photo of a {}."  # of datasets that bring no template of their own
# Words that begin with the sound of a vowel. Those like "one", "unicorn", "eucalyptus" and "utensil" do not; "hour" does.
VOWEL_SOUND = re.compile(
    r"(?!ones?\b|onesie|once|uni(?!n|m)|eu|ewe|usb|u[bkst][aeiu])[aeiou]|hour|hono|honest|heir", re.IGNORECASE
)
WORD_FILES, PROMPT_FILES = (".json", ".csv", ".txt"), (".json", ".csv")


def check_names(dataset: DictConfig) -> None:
    """Raises `UserError` if `class_names` or `prompts_file` has the wrong type or names a missing file."""
    names = dataset.class_names
    if isinstance(names, str):
        _file("dataset.class_names", names, WORD_FILES)
    elif names is not None and not OmegaConf.is_dict(names):
        raise UserError(
            f"dataset.class_names={names} is not allowed: {{class: words}}, or a {', '.join(WORD_FILES)} file of them"
        )
    if dataset.prompts_file is not None:
        _file("dataset.prompts_file", dataset.prompts_file, PROMPT_FILES)


def filled(template: str, word: str) -> str:
    """The prompt for a class: `template` with `word` in place of `{}`.

    The default template gets the article an if `word` begins with the sound of a vowel. Any other template is taken as it is.

    >>> filled("a photo of a {}.", "airplane"), filled("a photo of a {}!", "airplane")
    ('a photo of an airplane.', 'a photo of a airplane!')
    """
    if template == DEFAULT_TEMPLATE and VOWEL_SOUND.match(word):
        template = template.replace("a {}", "an {}")
    return template.replace("{}", word)


def class_words(class_names: Sequence[str], given: Mapping[str, str] | str | None) -> list[str]:
    """The words for each class from `given` (a mapping or a file).

    A class that `given` lacks gets its own name, with spaces in place of `_`. Raises `UserError` for a mapping with an
    unknown class, and for a file that has neither a known class nor one text for each class.
    """
    if isinstance(given, str):
        words = _words_of_file(given, class_names)
    else:
        words = {str(name): str(word) for name, word in (given or {}).items()}  # a class may be a number: `{0: zero}`
        if strange := [name for name in words if name not in class_names]:
            raise UserError(
                f"dataset.class_names: there is no class {strange[0]!r}; the classes are {', '.join(class_names)}"
            )
    return [words.get(name, name.replace("_", " ")) for name in class_names]


def class_sentences(file: str, class_names: Sequence[str], words: Sequence[str]) -> list[list[str]]:
    """The sentences for each class.

    `file` is a .json file {class: sentence or [sentences]}, or a .csv file in which each row has a class and a
    sentence. `{}` in a sentence stands for the class's words. Raises `UserError` for a class without a sentence.
    """
    path = _file("dataset.prompts_file", file, PROMPT_FILES)
    sentences: dict[str, list[str]] = {}
    for name, sentence in _pairs("dataset.prompts_file", path):
        for one in sentence if isinstance(sentence, list) else [sentence]:
            sentences.setdefault(name, []).append(_text("dataset.prompts_file", file, name, one))
    if lacking := [name for name in class_names if name not in sentences]:
        raise UserError(
            f"dataset.prompts_file={file}: it has no sentence for {counted(len(lacking), 'class')}, such as {lacking[0]!r}"
        )
    return [
        [sentence.replace("{}", word) for sentence in dict.fromkeys(sentences[name])]
        for name, word in zip(class_names, words, strict=True)
    ]


def _words_of_file(file: str, class_names: Sequence[str]) -> dict[str, str]:
    """Reads {class: words} from a file. The file is a table by class, or a list with one text for each class.

    Unknown classes in a table are ignored. The texts of a list are in the order of the classes.
    """
    path = _file("dataset.class_names", file, WORD_FILES)
    pairs = _pairs("dataset.class_names", path)
    known, by_class = set(class_names), path.suffix != ".txt" or all(word for _, word in pairs)
    table = {name: _text("dataset.class_names", file, name, word) for name, word in pairs if by_class and name in known}
    if table:
        return table
    in_order = [" ".join(pair).strip() if path.suffix == ".txt" else pair[-1] for pair in pairs]
    if len(in_order) == len(class_names):
        return {
            name: _text("dataset.class_names", file, name, word)
            for name, word in zip(class_names, in_order, strict=True)
        }
    raise UserError(
        f"dataset.class_names={file}: it names none of the {len(class_names)} classes, such as {class_names[0]!r}, and "
        f"has {len(pairs)} lines"
    )


def _pairs(key: str, path: Path) -> list[tuple[str, Any]]:
    """The pair (class, words) of each line, row or JSON entry.

    An entry of a JSON list has an empty string as its class.
    """
    try:
        text = read_text(path)
        if path.suffix == ".txt":
            return [
                (first, rest.strip()) for first, _, rest in (line.partition(" ") for line in text.splitlines() if line)
            ]
        if path.suffix == ".csv":
            return [(row[0], row[-1].strip()) for row in csv.reader(text.splitlines()) if row]
        content = json.loads(text)
    except UnreadableFile as error:
        raise UserError(f"{key}={path}: {error.reason}") from None
    except (ValueError, RecursionError, csv.Error) as error:
        raise UserError(f"{key}={path}: cannot read it ({first_line(error)})") from None
    if isinstance(content, list):
        return [("", entry) for entry in content]
    if not isinstance(content, dict):
        raise UserError(f"{key}={path}: it is not a table of classes, {{class: words}}")
    return list(content.items())


def _text(key: str, file: str, name: str, value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise UserError(f"{key}={file}: {value!r} of {name!r} is not allowed: a text that is not empty")
    return value.strip()


def _file(key: str, name: str, suffixes: Sequence[str]) -> Path:
    path = Path(name).expanduser()
    if path.suffix.lower() not in suffixes:
        raise UserError(f"{key}={name} is not allowed: a file {' or '.join(suffixes)}")
    if not path.is_file():
        raise UserError(f"{key}={name}: {placeholder(path)}")
    return path
