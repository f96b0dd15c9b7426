"""Finds the folders that are splits, and says which folders look like one but are not used."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from distdiff.data.notes import note
from distdiff.data.reading.walk import Walk, holds_images, is_locked, subfolders, walk
from distdiff.data.sources.left_aside import below, note_files_in, note_locked
from distdiff.data.sources.metadata import find_metadata
from distdiff.data.splits.carving import TEST, TRAIN, VALIDATION
from distdiff.data.splits.usual_names import SplitNames
from distdiff.errors import UserError
from distdiff.keys.suggesting import as_typed
from distdiff.wording import counted, some

PLAIN = re.compile(r"[A-Za-z0-9_./-]+")


@dataclass(frozen=True)
class SplitFolder:
    """A folder that may be a split. `place` holds its class folders, which `classes` names.

    `place` lies deeper than the folder itself if someone unpacked `test_set/cat` into a folder `test_set`.
    """

    name: str
    split: str
    place: Path
    classes: frozenset[str]


def find_split_folders(name: str, top: Path, shown: str, names: SplitNames) -> dict[str, Path]:
    """The folders that hold the class folders or the metadata file of each split. Empty if `top` has no split `train`.

    A folder with the name of a split may be a class of that name instead. It is a split if it holds a metadata file, or
    if it holds folders and no images. But if `top` also has a class folder, one with images and without the name of a
    split, then no folder is a split. Neither doubt counts if folders of two splits hold a folder of the same name.

    Notes what else lies in `top`. Messages call that folder `shown`.
    """
    inside = subfolders(top)
    named = {folder: _split_folder(top / folder, names) for folder in inside if names.of(folder) is not None}
    certain = _alike(list(named.values()))
    found = {folder: each for folder, each in named.items() if _is_split(each, folder in certain, named.values())}
    images = [folder for folder in inside if folder not in named and holds_images(top / folder)] if named else []
    if images and not certain:
        if taken := [folder for folder, each in found.items() if each.split == TRAIN]:
            what = f"{taken[0]} in {shown} is a class, not the {TRAIN} split, because {some(images)} beside it"
            note(name, f"{what} {'holds' if len(images) == 1 else 'hold'} images and no class folders")
        return {}
    used: dict[str, SplitFolder] = {}
    for folder in sorted(found, key=names.rank):
        used.setdefault(found[folder].split, found[folder])
    if found and (locked := [each.name for each in named.values() if each.split == TRAIN and is_locked(each.place)]):
        raise UserError(f"dataset.root={shown}: {locked[0]} in it may not be read (permission denied)")
    if TRAIN not in used:
        _note_alike(name, top, shown, inside, names)
        return {}
    _note_unused(name, top, shown, [folder for folder in inside if not _holds(used, folder)], used, names)
    note_files_in(name, top, shown, find_metadata(top))
    for each in used.values():
        _note_beside(name, top, shown, each)
    return {split: used[split].place for split in used}


def _split_folder(folder: Path, names: SplitNames) -> SplitFolder:
    split, place = names.of(folder.name), folder
    while find_metadata(place) is None and not holds_images(place) and len(inside := subfolders(place)) == 1:
        deeper = place / inside[0]
        if names.of(inside[0]) != split or not (subfolders(deeper) or find_metadata(deeper)):
            break
        place = deeper
    return SplitFolder(folder.name, split, place, frozenset(subfolders(place)))


def _alike(folders: Sequence[SplitFolder]) -> set[str]:
    """The names of the folders that share a class with a folder of another split."""
    return {a.name for a in folders for b in folders if a.split != b.split and a.classes & b.classes}


def _is_split(folder: SplitFolder, certain: bool, named: Sequence[SplitFolder]) -> bool:
    if certain or find_metadata(folder.place) is not None:
        return True
    trained = {name for other in named if other.split == TRAIN for name in other.classes}
    if folder.split != TRAIN and folder.classes == {folder.place.name} - trained:
        return False  # `test/test/` with images
    return bool(folder.classes) and not holds_images(folder.place)


def _holds(used: dict[str, SplitFolder], folder: str) -> bool:
    return any(each.name == folder for each in used.values())


def _note_unused(
    name: str, top: Path, shown: str, folders: Sequence[str], used: dict[str, SplitFolder], names: SplitNames
) -> None:
    """Notes each of `folders` that looks like a split, and all others together."""
    others, counts, locked = Walk(), {}, []
    for folder in folders:
        found = below(walk(top / folder), folder)
        common = sorted(used[TRAIN].classes.intersection(subfolders(top / folder)))
        locked += found.locked
        if folder in found.locked:
            continue
        if names.of(folder) is None and not common:
            counts[folder] = len(found.images)
            others.images += found.images
            others.others += found.others
            continue
        why = _why_unused(folder, names.of(folder), bool(found.images), common, used)
        number = counted(len(found.images), "image")
        note(name, f"{folder} in {shown} is not used, {number}: {why}", found.images)
    note_locked(name, shown, locked)
    if counts:
        what = (
            f"{counted(len(counts), 'folder')} of {shown} in no split left out, {counted(len(others.images), 'image')}"
        )
        files = f" and {counted(len(others.others), 'other file')}" if others.others else ""
        note(name, f"{what}{files}: {some(list(counts))}", [*others.images, *others.others])


def _why_unused(
    folder: str, split: str | None, holds_any: bool, common: Sequence[str], used: dict[str, SplitFolder]
) -> str:
    if split is None:
        free = next((other for other in (TEST, VALIDATION) if other not in used), TEST)
        return f"it looks like a split, with {some(common)}; {_typed(f'dataset.{free}_split', folder)} makes it one"
    if split in used:
        key = f"dataset.{split}_split"
        return f"the {split} split is {used[split].name}; {_typed(key, folder)} takes {folder} in its place"
    why = "no class folder or metadata file has its images" if holds_any else "it holds no images"
    return f"{why}, so {split} images are taken from {used[TRAIN].name}"


def _note_beside(name: str, top: Path, shown: str, folder: SplitFolder) -> None:
    """Notes the files in a split's folder, and in the folders around it, that lie beside its class folders."""
    table = find_metadata(folder.place)
    for place in (folder.place, *folder.place.parents):
        if place == top:
            break
        if table is None or place != folder.place:  # the reader of a table says what the table does not list
            note_files_in(name, place, f"{shown}/{place.relative_to(top).as_posix()}")


def _note_alike(name: str, top: Path, shown: str, inside: Sequence[str], names: SplitNames) -> None:
    """Notes folders without images that hold folders of the same names, since these may be splits."""
    if any(holds_images(top / folder) for folder in inside):
        return
    found: dict[frozenset[str], list[str]] = {}
    for folder in inside:
        deeper = subfolders(top / folder)
        if deeper == [folder]:  # `seg_train/seg_train/`
            deeper = subfolders(top / folder / folder)
        found.setdefault(frozenset(deeper), []).append(folder)
    for classes, folders in found.items():
        if len(classes) > 1 and len(folders) > 1:
            hinted = {names.hinted(folder): folder for folder in reversed(folders)}
            train = hinted.get(TRAIN, folders[0])
            test = hinted.get(TEST, next(folder for folder in folders if folder != train))
            how = f"{_typed(f'dataset.{TRAIN}_split', train)} {_typed(f'dataset.{TEST}_split', test)}"
            words = f"{some(folders)} in {shown} are classes, but hold the same folders, {some(sorted(classes))}"
            note(name, f"{words}; if they are splits, say so: {how}")


def _typed(key: str, value: str) -> str:
    return f"{key}={value}" if PLAIN.fullmatch(value) else as_typed(key, value)
