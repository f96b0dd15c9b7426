"""Uploads an exported dataset to the Hugging Face hub."""

from pathlib import Path

from huggingface_hub import HfApi
from huggingface_hub.utils import HFValidationError, validate_repo_id

from distdiff.errors import UserError, first_line


def check_repo(repo_id: str, key: str) -> None:
    """Raises `UserError` for a name, given by `key`, that the hub does not accept."""
    try:
        validate_repo_id(repo_id)
    except HFValidationError as error:
        raise UserError(f"{key}={repo_id} is not allowed: owner/name ({first_line(error)})") from None


def upload(directory: Path, repo_id: str, private: bool, key: str) -> str:
    """Makes the dataset repository if it does not exist, uploads the directory's files to it, and returns its address.

    Other files in the repository stay. Raises `UserError`, which names `repo_id` by its `key`, if the hub cannot be reached
    or refuses.
    """
    api = HfApi()
    try:
        address = api.create_repo(repo_id, repo_type="dataset", private=private, exist_ok=True)
        api.upload_folder(
            repo_id=repo_id,
            repo_type="dataset",
            folder_path=directory,
            commit_message="Expanded dataset, exported by DistDiff",
            ignore_patterns=[".*"],
        )
    except Exception as error:  # the hub's client raises its own, its transport's and the system's
        raise UserError(
            f"{key}={repo_id}: it cannot be uploaded ({first_line(error)}); {directory} is whole, and the same "
            "command tries again (hf auth login, HF_TOKEN)"
        ) from None
    return str(address)
