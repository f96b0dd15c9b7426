"""Where a generator is: one of ours, a folder, or the Hugging Face hub (no heavy imports: validation asks first)."""

from pathlib import Path

from distdiff.errors import UserError
from distdiff.hub import local_path

ASSETS = Path(__file__).resolve().parents[1] / "assets"


def model_path(model: str) -> Path | None:
    """The local folder that `generator.model` names (`asset:<name>` is one of ours), or None for a hub id.

    Raises `UserError` for a path that does not exist or is no pipeline.
    """
    if model.startswith("asset:"):
        return ASSETS / model.removeprefix("asset:")
    path = local_path("generator.model", model)
    if path is not None and not (path / "model_index.json").is_file():
        raise UserError(f"generator.model={model} is no diffusers pipeline: it has no model_index.json")
    return path
