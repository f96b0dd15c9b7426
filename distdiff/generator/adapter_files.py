"""Finds the file of a LoRA or textual inversion: in a local folder, or in a repository of the Hugging Face hub.

This module has no heavy imports, because the check of the configuration uses it before any model is loaded.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from distdiff.caching.fingerprint import MODEL_FILES, fingerprint_files
from distdiff.errors import UserError
from distdiff.generator.location import model_path
from distdiff.hub import hub_files, hub_identity, hub_or_cache, pinned, refuse_no_name
from distdiff.wording import some

PEFT_CONFIG = "adapter_config.json"  # PEFT writes it beside the weights; it says how strongly they count
NO_WEIGHTS = ("scheduler", "optimizer", "checkpoint")  # what trainers save beside the weights, as diffusers knows it


@dataclass(frozen=True)
class AdapterKind:
    """A kind of adapter: its key, the types of files that hold it, and the names that libraries give to these files.

    If a folder has a file of one of these names, the file is taken, whatever else is in the folder.
    """

    key: str
    suffixes: tuple[str, ...]
    usual_names: tuple[str, ...]


LORA = AdapterKind("generator.lora", (".safetensors",), ("pytorch_lora_weights.safetensors",))
LEARNED_WORD = AdapterKind(
    "generator.textual_inversion",
    (".safetensors", ".bin", ".pt"),
    ("learned_embeds.safetensors", "learned_embeds.bin"),
)


@dataclass(frozen=True)
class HubPlace:
    """A repository of the hub, and the file in it that was asked for (None: the repository has only one)."""

    repository: str
    file: str | None


def adapter_place(kind: AdapterKind, name: str) -> Path | HubPlace:
    """The local file, or the place on the hub, that `name` means.

    `name` is a local file or folder, or `owner/repository` or `owner/repository/<file>` on the hub. Raises `UserError` for
    an empty name, a path that does not exist, a file of another type, and a folder in which it is unclear which file is meant.
    """
    refuse_no_name(kind.key, name)
    owner, *rest = name.split("/")
    is_path = not owner or owner.startswith((".", "~")) or Path(name).exists()
    suffix = PurePosixPath(name).suffix
    if not is_path and suffix in kind.suffixes and len(rest) >= 2:
        return HubPlace(f"{owner}/{rest[0]}", "/".join(rest[1:]))
    if not is_path and suffix in kind.suffixes and len(rest) == 1:  # on the hub, a file lies in owner/repository/
        raise UserError(f"{kind.key}={name}: no such file or folder")
    path = model_path(name, kind.key)
    if path is None:
        return HubPlace(name, None)
    if path.is_dir():
        return path / choose_file(kind, name, [entry.name for entry in path.iterdir() if not entry.is_dir()])
    if path.suffix.lower() in kind.suffixes and path.suffix not in kind.suffixes:
        raise UserError(f"{kind.key}={name} is not allowed: {_in_capitals(path.name)}")
    if path.suffix not in kind.suffixes:
        raise UserError(f"{kind.key}={name} is not allowed: a {' or '.join(kind.suffixes)} file, or a folder with one")
    return path


def choose_file(kind: AdapterKind, name: str, files: Iterable[str]) -> str:
    """The only file of `name`'s top folder that can be meant; raises `UserError` if there is none, or more than one."""
    files = [file for file in files if "/" not in file]
    found = sorted(
        file
        for file in files
        if PurePosixPath(file).suffix in kind.suffixes and not any(word in file for word in NO_WEIGHTS)
    )
    usual = [file for file in kind.usual_names if file in found]
    if usual or len(found) == 1:
        return (usual or found)[0]
    capitals = sorted(file for file in files if PurePosixPath(file).suffix.lower() in kind.suffixes)
    if not found and capitals:
        raise UserError(f"{kind.key}={name} is not allowed: {_in_capitals(capitals[0])}")
    if not found:
        raise UserError(f"{kind.key}={name} is not allowed: it has no {' or '.join(kind.suffixes)} file")
    raise UserError(
        f"{kind.key}={name} is not allowed: it has {len(found)} weight files ({some(found)}); name one, such as "
        f"{kind.key}=['{name.rstrip('/')}/{found[0]}']"
    )


def _in_capitals(file: str) -> str:
    suffix = PurePosixPath(file).suffix
    return f"libraries know only files that end in {suffix.lower()}; rename {file}"


def choose_on_hub(kind: AdapterKind, place: HubPlace) -> str:
    """The name of the file in the repository that `place` means. Raises `UserError`, and the errors of the hub's client.

    Without a network, only the files in the hub's cache are known.
    """
    return _chosen(kind, place, hub_files(place.repository))


def fetch_adapter(kind: AdapterKind, place: HubPlace) -> Path:
    """Downloads the adapter's file, unless it is cached, and returns its path in the cache.

    Raises `UserError`, and the errors of the hub's client.
    """
    from huggingface_hub import hf_hub_download

    with hub_or_cache():
        commit, files = pinned(place.repository).resolved, hub_files(place.repository)
        file = _chosen(kind, place, files)
        beside = str(PurePosixPath(file).with_name(PEFT_CONFIG))
        if kind is LORA and beside in files:
            hf_hub_download(place.repository, beside, revision=commit)
        return Path(hf_hub_download(place.repository, file, revision=commit))


def here(place: HubPlace) -> str:
    """What to say before the hub's reason if the name of a file may have been meant as a path."""
    return "" if place.file is None else "there is no such file here, and as a file on the hub: "


def _chosen(kind: AdapterKind, place: HubPlace, files: list[str]) -> str:
    if place.file is None:
        return choose_file(kind, place.repository, files)
    if place.file not in files:
        alike = sorted(file for file in files if PurePosixPath(file).suffix in kind.suffixes)
        there = f"it has {some(alike)}" if alike else "it has no weight file"
        raise UserError(
            f"{kind.key}={place.repository}/{place.file}: {place.repository} on the hub has no such file; {there}"
        )
    return place.file


def adapter_identity(kind: AdapterKind, name: str) -> str:
    """Identifies an adapter: the hash of the local file or folder that `name` names, or the commit on the hub."""
    place = adapter_place(kind, name)
    if isinstance(place, HubPlace):
        commit = hub_identity(place.repository)
        return commit if place.file is None else f"{commit}/{place.file}"
    named = model_path(name, kind.key)
    if named.is_dir() and place.suffix in MODEL_FILES:
        return fingerprint_files(named)
    beside = place.with_name(PEFT_CONFIG)
    if kind is LORA and beside.is_file() and not named.is_dir() and is_of_peft(place):
        return f"{fingerprint_files(place)}+{fingerprint_files(beside)}"
    return fingerprint_files(place)


def is_of_peft(file: Path) -> bool:
    """Whether a file is named as PEFT's `save_pretrained` names its weights."""
    return file.name.startswith("adapter_model")
