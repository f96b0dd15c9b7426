"""Models that a name finds in a local folder or on the Hugging Face hub (no heavy imports: validation asks first)."""

from pathlib import Path

from distdiff.errors import UserError, first_line

UNREACHABLE = "the Hugging Face hub cannot be reached and the model is not in its cache; give a local folder"
NO_SUCH_MODEL = ("401", "404", "gated", "not a valid model identifier")


def local_path(key: str, name: str) -> Path | None:
    """The file or folder that `<key>=<name>` means, or None for a hub id `owner/name`.

    Raises `UserError` for a path that does not exist.
    """
    path = Path(name).expanduser()
    looks_local = path.is_absolute() or name.startswith((".", "~")) or name.count("/") != 1 or path.exists()
    if not looks_local:
        return None
    if not path.exists():
        raise UserError(f"{key}={name}: no such file or folder")
    return path


def hub_reason(error: Exception) -> str:
    """Why the hub did not give a model, in words for people."""
    from huggingface_hub.errors import LocalEntryNotFoundError

    if isinstance(error.__context__, LocalEntryNotFoundError):  # diffusers speaks of a missing file then
        return UNREACHABLE
    text = str(error)
    if any(sign in text.lower() for sign in NO_SUCH_MODEL):
        return "the hub has no such model, or it needs a login (huggingface-cli login); a local folder works too"
    if "not a valid git identifier" in text or "appear to have a file named" in text:
        return first_line(error)
    return UNREACHABLE
