"""Labelled image files."""

import os
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from distdiff.data.cache.examined import top_folder
from distdiff.data.images import LabelledImages
from distdiff.data.notes import note
from distdiff.data.reading.walk import hidden_subfolders, is_locked, walk
from distdiff.data.sources.left_aside import below, note_locked, note_others
from distdiff.wording import counted, printable, some


def from_files(
    name: str, class_names: Sequence[str], labels: Sequence[int], keys: Sequence[str], paths: Sequence[Path]
) -> LabelledImages:
    """Image files, each with a label and with a key that is unique within its class."""
    return LabelledImages(
        name=name,
        class_names=tuple(class_names),
        labels=np.array(labels, dtype=np.int64),
        keys=tuple(map(printable, keys)),
        read=None,
        indices=np.arange(len(paths)),
        file=paths.__getitem__,
        listing=top_folder(paths),
    )


def from_class_folders(name: str, top: Path, folders: Sequence[str], shown: str | None = None) -> LabelledImages:
    """The images in the class folders `folders` of `top`. The key of an image is its path below its class folder.

    Notes the files and folders that are left out. Messages call the folder `shown`, or by its path.
    """
    shown = str(top) if shown is None else shown
    labels, keys, paths, others, locked = [], [], [], [], []
    for label, folder in enumerate(folders):
        if not (os.path.isdir(top / folder) or is_locked(top / folder)):  # a split need not have every class
            continue
        found = walk(top / folder)
        labels += [label] * len(found.images)
        keys += found.images
        paths += [f"{top}/{folder}/{key}" for key in found.images]
        others += below(found, folder).others
        locked += below(found, folder).locked
    strange = [folder for folder in folders if not folder.isascii() and re.search("[\udc80-\udcff]", folder)]
    if strange := [folder for folder in strange if (top / folder).is_dir()]:
        note(
            name,
            f"{counted(len(strange), 'class folder')} of {top} with a name that is not UTF-8, so that prompts have escapes: "
            f"{some(strange)}; dataset.class_names gives words for them",
            strange,
            about="file names",
        )
    if hidden := hidden_subfolders(top):
        note(name, f"{counted(len(hidden), 'folder')} with a leading dot left out of {shown}: {some(hidden)}", hidden)
    note_locked(name, shown, locked)
    note_others(name, f"left out of {shown}", top, others)
    return from_files(name, [printable(folder) for folder in folders], labels, keys, paths)
