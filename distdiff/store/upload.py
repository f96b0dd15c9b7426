"""Uploads an exported dataset to the Hugging Face hub."""

from pathlib import Path

from huggingface_hub import HfApi
from huggingface_hub.utils import HFValidationError, validate_repo_id

from distdiff.errors import UserError, first_line


def check_repo(repo_id: str, key: str) -> None:
    """Raises `UserError` if `repo_id`, the value of the configuration key `key`, is not a valid name on the hub."""
    try:
        validate_repo_id(repo_id)
    except HFValidationError as error:
        raise UserError(f"{key}={repo_id} is not allowed: owner/name ({first_line(error)})") from None


def upload(directory: Path, repo_id: str, private: bool, key: str) -> str:
    """Uploads the directory's files to the dataset repository `repo_id`, and returns the repository's URL.

    The repository is made if it does not exist. Other files in the repository stay. Raises `UserError`, which names the
    configuration key `key`, if the hub cannot be reached or refuses the upload.
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
    except Exception as error:  # errors of huggingface_hub, HTTP errors and system errors
        raise UserError(
            f"{key}={repo_id}: it cannot be uploaded ({first_line(error)}); {directory} is whole; log in "
            "if needed (hf auth login or HF_TOKEN), and repeat the command"
        ) from None
    return str(address)
