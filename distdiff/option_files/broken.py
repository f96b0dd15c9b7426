"""Says which YAML file of a folder of the user's own is broken. Hydra and its parser name no file for most faults."""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import yaml

from distdiff.errors import first_line
from distdiff.texts import UnreadableFile, read_text

GROUP = re.compile(r"[+~]*(\w[\w/]*)(?:@[^=]*)?=")  # the group or key that an override begins with
BETWEEN = re.compile(r"[\s,=:'\"()\[\]{}+]+")  # what stands between the names in an override or a YAML file


def refuse_broken(folders: Sequence[Path], ours: Path, overrides: Iterable[str]) -> None:
    """Raises `UnreadableFile` for a broken file among the options in `folders` that `overrides` name.

    Groups are the folders in `ours`, DistDiff's own configuration, and those that the overrides name. The options that
    such a file names itself, as in its defaults, are looked at too. A broken file that nothing names hinders nobody.
    """
    if not folders:
        return
    overrides = list(overrides)
    groups = {place.name for place in ours.iterdir() if place.is_dir()}
    groups |= {match[1] for override in overrides if (match := GROUP.match(override))}
    left = {
        path: path.relative_to(folder / group).with_suffix("").as_posix()
        for folder in folders
        for group in sorted(groups)
        for path in sorted((folder / group).rglob("*.yaml"))
    }
    names = {name for override in overrides for name in BETWEEN.split(override)}
    while chosen := [path for path, name in left.items() if name in names]:
        for path in chosen:
            names.update(BETWEEN.split(_sound(path)))
            del left[path]


def _sound(path: Path) -> str:
    """The text of a YAML file of keys. Raises `UnreadableFile` for any other file."""
    text = read_text(path)
    try:
        top = yaml.compose(text, yaml.SafeLoader)
    except (yaml.YAMLError, RecursionError) as error:
        mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None)
        reason = first_line(error) if mark is None or problem is None else f"line {mark.line + 1}: {problem}"
        raise UnreadableFile(path, f"it is no YAML ({reason})") from None
    if top is not None and not isinstance(top, yaml.MappingNode):
        raise UnreadableFile(path, "it does not hold keys, key: value")
    return text
