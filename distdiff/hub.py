"""Finds models by name in a local folder or on the Hugging Face hub.

Configurations are checked with the help of this module, so it imports nothing heavy.
"""

import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from safetensors import SafetensorError

from distdiff.errors import UserError, first_line
from distdiff.placeholders import absent

if TYPE_CHECKING:
    from huggingface_hub import ResolvedRevision

# What libraries raise if a file is not of the kind that they expect.
LOADING_ERRORS = (OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError, SafetensorError)
ADDRESS = re.compile(r"https?:/+(?P<host>[^/]*)/*(?P<path>[^?#]*)", re.IGNORECASE)
PAUSE = 1  # seconds before the hub is asked again: a host name is not always found at the first try


def local_path(key: str, name: str) -> Path | None:
    """The file or folder that `<key>=<name>` means, or None for a hub id `owner/name`.

    Raises `UserError` for a path that does not exist, and for what is no name (`refuse_no_name`).
    """
    refuse_no_name(key, name)
    path = Path(name).expanduser()
    looks_local = path.is_absolute() or name.startswith((".", "~")) or name.count("/") != 1 or os.path.lexists(path)
    if not looks_local:
        return None
    if not path.exists():
        raise UserError(f"{key}={name}: {absent(path)}")
    return path


def refuse_no_name(key: str, name: str) -> None:
    """Raises `UserError` for an empty name, which `Path` takes for the current folder, and for the address of a page."""
    if not name:
        raise UserError(f"{key}='' is not allowed: it is empty")
    if address := ADDRESS.match(name):
        page = re.sub(r"^([^/]+/[^/]+)/(?:resolve|blob|tree)/[^/]+", r"\1", address["path"]).rstrip("/")
        wanted = (
            f"write {page}" if "huggingface.co" in address["host"] and page else "give a file, a folder or a hub id"
        )
        raise UserError(f"{key}={name} is not allowed: it is the address of a page; {wanted}")


@contextmanager
def hub_or_cache() -> Iterator[None]:
    """Inside the block, if the hub cannot be reached, only the hub's local cache is used, as if offline.

    Without this block, the hub's client would ask an unreachable hub six times for every file, with longer and longer
    pauses. A hub that answers is used as usual. Only connecting has a time limit (HF_HUB_ETAG_TIMEOUT, 10 s); a slow
    transfer has none.
    """
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE or _answers():
        yield
        return
    constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = False


def _answers() -> bool:
    try:
        _connect()
    except ConnectionError:
        return False
    return True


@cache  # a failure is not cached, so the hub is asked again for the next model
def _connect() -> None:
    from huggingface_hub import constants, get_session
    from huggingface_hub.errors import HTTPError

    for attempt in range(2):
        try:
            get_session().head(constants.ENDPOINT, timeout=constants.HF_HUB_ETAG_TIMEOUT)  # any status is an answer
            return
        except HTTPError as error:
            reason = error
        if attempt == 0:
            time.sleep(PAUSE)
    raise ConnectionError(str(reason)) from reason


# (hub id, revision) of each model that `hub_identity` named without a commit, because the commit was unknown.
_unidentified: set[tuple[str, str | None]] = set()


def pinned(name: str, revision: str | None = None, kind: str = "model") -> "ResolvedRevision":
    """Resolves `revision`, a branch, tag or commit (None: `main`) of the hub id `name`, to a commit hash (`.resolved`).

    Each process asks the hub once, and all ranks of a job use the first answer that any of them got. So the commit in
    the names of results is also the one that is loaded, even if the branch moves meanwhile. If the hub cannot be
    reached, the result is the last commit of this revision in the hub's cache. `kind` is `model` or `dataset`.

    Raises the errors of the hub's client (`hub_reason` puts these errors in words), and `UserError` if results of this
    run were already named without the commit.
    """
    with hub_or_cache():
        found = _pinned(name, revision, kind)
    if (name, revision) in _unidentified:
        raise UserError(f"{name} could not be identified before, and now it can: rerun the same command")
    return found


def hub_identity(name: str, revision: str | None = None) -> str:
    """`name@commit`, which identifies the files of a model on the hub.

    If neither the hub nor its cache gives the commit, the result is `name@revision`, and the model cannot be loaded. If
    the hub answers again before the model is loaded, `pinned` raises `UserError`, so that no results get an incomplete
    name.
    """
    from huggingface_hub.errors import HFValidationError, HTTPError, RevisionResolutionError

    _unidentified.discard((name, revision))
    try:
        return f"{name}@{pinned(name, revision).resolved}"
    except (HTTPError, HFValidationError, RevisionResolutionError):
        _unidentified.add((name, revision))
        return f"{name}@{revision or 'main'}"


@cache  # a failure is not cached, so the next call tries again
def _pinned(name: str, revision: str | None, kind: str) -> "ResolvedRevision":
    from huggingface_hub import ResolvedRevision, constants, resolve_revision

    from distdiff.ranks.world import world

    found = resolve_revision(name, revision=revision, repo_type=kind, local_files_only=constants.HF_HUB_OFFLINE)
    commit = world().agreed(f"{kind} {name}@{found}", found.resolved)
    return ResolvedRevision(resolved=commit, initial=revision, repo_id=name, repo_type=kind)


def hub_files(name: str, revision: str | None = None) -> list[str]:
    """The paths of all files of the hub id `name`. Offline, only those in the hub's cache are known.

    Raises the errors of the hub's client.
    """
    from huggingface_hub import HfApi, constants, snapshot_download

    commit = pinned(name, revision).resolved
    if not constants.HF_HUB_OFFLINE:
        return HfApi().list_repo_files(name, revision=commit)
    folder = Path(snapshot_download(name, revision=commit, local_files_only=True))
    return [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]


def cached_folder(name: str, file: str, revision: str | None = None) -> Path:
    """The folder in the hub's cache that holds `file` of the hub id `name`."""
    from huggingface_hub import hf_hub_download

    return Path(hf_hub_download(name, file, revision=revision, local_files_only=True)).parent


def hub_reason(error: Exception) -> str:
    """Why the hub did not give a model, in plain words."""
    from huggingface_hub import constants
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        HTTPError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
        RevisionNotFoundError,
        RevisionResolutionError,
    )

    behind = list(_behind(error))

    def is_any(*kinds: type[BaseException]) -> bool:
        return any(isinstance(cause, kinds) for cause in behind)

    if is_any(GatedRepoError):
        return (
            "it is gated: ask for access on its page on the hub, then log in (hf auth login); a local folder works too"
        )
    if is_any(RevisionNotFoundError):
        return "the hub has it, but not this revision"
    if is_any(RepositoryNotFoundError):
        return "the hub has no such model, or it needs a login (hf auth login); a local folder works too"
    refused = next((cause for cause in behind if isinstance(cause, HfHubHTTPError)), None)
    if refused is not None and refused.response.status_code != 404:
        return f"the hub answered with status {refused.response.status_code}; try again later, or give a local folder"
    unreachable = (LocalEntryNotFoundError, OfflineModeIsEnabled, RevisionResolutionError, ConnectionError, HTTPError)
    if is_any(*unreachable) and refused is None:
        why = " (HF_HUB_OFFLINE is set)" if constants.HF_HUB_OFFLINE else ""
        return f"the Hugging Face hub cannot be reached{why} and the model is not in its cache; give a local folder"
    return first_line(error)


def _behind(error: BaseException | None) -> Iterator[BaseException]:
    """The error and all its causes; libraries often wrap the hub's error in one of their own."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
