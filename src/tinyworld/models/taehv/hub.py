"""The Hugging Face hub: a model's folder from there and to there. Imports huggingface_hub when it is needed.

A name "org/name" is a path first: the hub is only asked where no file or folder of that name exists.
"""

from pathlib import Path

from tinyworld.core.console import LOGGER
from tinyworld.core.errors import ConfigError, UserError
from tinyworld.models.hub import check_name, is_name, not_given, said

__all__ = ["FILES", "HubError", "check_name", "fetch", "is_name", "upload"]

FILES = (
    "config.json",
    "model.safetensors",
    "diffusion_pytorch_model*.safetensors",
    "diffusion_pytorch_model*.json",
)
"""What is fetched of a repository: what `save_pretrained` writes, here or in diffusers. No pickles, and no other models beside
it."""


class HubError(UserError, OSError):
    """The hub refused an upload, or could not be reached. A folder arrives in one commit: whole or not at all."""


def fetch(name: str, revision: str | None = None, token: str | None = None, subfolder: str = "") -> Path:
    """The folder of a repository, downloaded into the hub's cache or found there; of it only `subfolder`, where one is given.

    Raises MissingFileError that names both readings of the name: the path that is not there, and what the hub said.
    """
    from huggingface_hub import snapshot_download

    wanted = [f"{subfolder}/{file}" if subfolder else file for file in FILES]
    LOGGER.info("%s: from the Hugging Face hub", name)
    try:
        return Path(snapshot_download(name, revision=revision, token=token, allow_patterns=wanted)) / subfolder
    except Exception as error:  # not found, gated, offline, no network: each is an exception family of its own
        otherwise = "A local file or folder works as well; with token=… the hub need not know who is logged in."
        raise not_given("TAEHV weights", name, error, otherwise, revision) from error


def upload(
    folder: Path,
    name: str,
    message: str,
    private: bool = False,
    revision: str | None = None,
    token: str | None = None,
) -> str:
    """Put all files of a folder into the repository `name`, made when it is not there; returns the address of the commit.

    Files of the same names are replaced there, others stay. private: the repository must be, or is made, a private one; else
    it is made as the account's or organisation's settings have it. revision: a branch, made when it is not there. Raises
    ConfigError for what is no "org/name" and for a public repository that should be private, HubError when the hub refuses.
    """
    check_name(name)
    from huggingface_hub import HfApi

    hub = HfApi(token=token)
    try:
        hub.create_repo(name, private=private or None, exist_ok=True)
        # For a repository that is there the hub ignores `private`, and what should be hidden would be published.
        if private and not hub.repo_info(name).private:
            raise ConfigError(
                f"{name} is there already and is public, and the upload should be private. Nothing was sent. Make it private in "
                "its settings on the hub, give another name (--repo), or leave out --private (private=True)."
            )
        if revision is not None:
            hub.create_branch(name, branch=revision, exist_ok=True)
        commit = hub.upload_folder(repo_id=name, folder_path=folder, revision=revision, commit_message=message)
    except UserError:
        raise
    except Exception as error:  # no token, no right, no network: each is an exception family of its own
        raise HubError(
            f"The Hugging Face hub did not take {name} ({said(error)}). Log in with `hf auth login`, or set HF_TOKEN, with a "
            "token that may write to it; check the name and the connection."
        ) from error
    return str(commit.commit_url)
