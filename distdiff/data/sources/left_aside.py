"""Says which files of a dataset's folder are left aside, how many they are, and why."""

import os
from collections.abc import Sequence
from pathlib import Path

from distdiff.data.naming import ARCHIVES
from distdiff.data.notes import note
from distdiff.data.reading.walk import Walk, files_in
from distdiff.placeholders import absent
from distdiff.wording import counted, some

# Endings of archives, also of those that are not read: an archive inside a folder is never unpacked.
PACKED = (*ARCHIVES, ".7z", ".rar", ".gz", ".bz2", ".xz", ".zst", ".tzst", ".lz4")


def is_packed(name: str) -> bool:
    """Whether a file name has an archive's extension, be it of a kind that is read or not."""
    return name.lower().endswith(PACKED)


def note_files_in(name: str, folder: Path, shown: str, table: Path | None = None) -> None:
    """Notes the files that lie directly in `folder`, beside its class folders or splits, except its metadata file.

    Messages call the folder `shown`.
    """
    images, others = files_in(folder)
    if images:
        lying = f"{counted(len(images), 'image')} in {shown} itself, in no class folder, left out: {some(images)}"
        note(name, lying, images)
    others = [other for other in others if table is None or other != table.name]
    note_others(name, f"left out of {shown}", folder, others)


def note_others(name: str, where: str, folder: Path, others: Sequence[str], why: str = "no image or hidden") -> None:
    """Notes the files `others` below `folder`, which are not used.

    `where` says what becomes of them and where they are, and `why` the reason. Links that lead nowhere have another.
    """
    lost: dict[str, list[str]] = {}
    for other in others:
        if os.path.islink(folder / other) and not os.path.exists(folder / other):
            lost.setdefault(absent(folder / other).removeprefix("it is "), []).append(other)
    for reason, links in lost.items():
        note(name, f"{counted(len(links), 'file')} {where}, {reason}: {some(links)}", links)
    others = [other for other in others if not any(other in links for links in lost.values())]
    packed = [other for other in others if is_packed(other)]
    if packed:
        how = "an archive in a folder is not unpacked, so unpack it yourself"
        note(name, f"{counted(len(packed), 'archive')} {where} ({how}): {some(packed)}", packed)
    if rest := [other for other in others if not is_packed(other)]:
        note(name, f"{counted(len(rest), 'file')} {where}, {why}: {some(rest)}", rest)


def note_locked(name: str, shown: str, locked: Sequence[str]) -> None:
    """Notes the folders below `shown` that may not be read."""
    if locked:
        what = f"{counted(len(locked), 'folder')} left out of {shown}, permission denied"
        note(name, f"{what}: {some(locked)}", locked)


def below(found: Walk, folder: str) -> Walk:
    """What was found in `folder`, with paths from the folder above it."""
    return Walk(
        *([f"{folder}/{path}" for path in paths] for paths in (found.images, found.others)),
        locked=[f"{folder}/{path}".rstrip("/") for path in found.locked],
    )
