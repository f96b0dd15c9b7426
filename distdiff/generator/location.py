"""Where a generator is: one of ours, a folder, or the Hugging Face hub (no heavy imports: validation asks first)."""

from pathlib import Path

from distdiff.errors import UserError

ASSETS = Path(__file__).resolve().parents[1] / "assets"


def model_path(model: str) -> Path | None:
    """The local folder that `generator.model` names (`asset:<name>` is one of ours), or None for a hub id.

    Raises `UserError` for a path that does not exist or is no pipeline.
    """
    if model.startswith("asset:"):
        return ASSETS / model.removeprefix("asset:")
    path = Path(model).expanduser()
    looks_local = path.is_absolute() or model.startswith((".", "~")) or model.count("/") != 1 or path.exists()
    if not looks_local:
        return None
    if not path.exists():
        raise UserError(f"generator.model={model}: no such folder")
    if not (path / "model_index.json").is_file():
        raise UserError(f"generator.model={model} is no diffusers pipeline: it has no model_index.json")
    return path
