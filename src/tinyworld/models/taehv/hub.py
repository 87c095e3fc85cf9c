"""The Hugging Face hub: a model's folder from there and to there. Imports huggingface_hub when it is needed.

A name "org/name" is a path first: the hub is only asked where no file or folder of that name exists.
"""

import re
from pathlib import Path

from tinyworld.core.errors import ConfigError, MissingFileError, UserError

FILES = ("*.json", "*.safetensors", "README.md")
"""What is fetched of a repository. No pickles: those are for people to choose."""
_NAME = re.compile(r"\w[\w.-]*/\w[\w.-]*")


class HubError(UserError, OSError):
    """The hub refused an upload, or could not be reached. A folder arrives in one commit: whole or not at all."""


def is_name(path: str | Path) -> bool:
    """Whether this reads as the name of a repository, and not as a path that exists."""
    return not Path(path).expanduser().exists() and _NAME.fullmatch(str(path)) is not None


def check_name(name: str) -> None:
    """Raises ConfigError unless this can be the name of a repository."""
    if _NAME.fullmatch(name) is None:
        raise ConfigError(
            f'{name!r} is no name of a repository: it must be "ORG/NAME", such as "my-team/taew2_1-small".'
        )


def fetch(name: str, revision: str | None = None, token: str | None = None) -> Path:
    """The folder of a repository, downloaded into the hub's cache or found there.

    Raises MissingFileError that names both readings of the name: the path that is not there, and what the hub said.
    """
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, revision=revision, token=token, allow_patterns=list(FILES)))
    except Exception as error:  # not found, gated, offline, no network: each is an exception family of its own
        said = " ".join(str(error).split())[:300]
        at = f" at revision {revision!r}" if revision else ""
        raise MissingFileError(
            f"No TAEHV weights at {name!r}: {Path.cwd() / name} does not exist, and the Hugging Face hub did not give the "
            f"repository of that name{at} ({type(error).__name__}: {said}). It may not exist, be private or gated "
            "(`hf auth login`, or token=…), or be out of reach. A local file or folder works as well."
        ) from error


def upload(
    folder: Path,
    name: str,
    message: str,
    private: bool = False,
    revision: str | None = None,
    token: str | None = None,
) -> str:
    """Put all files of a folder into the repository `name`, made when it is not there; returns the address of the commit.

    revision: a branch, made when it is not there. Raises ConfigError for what is no "org/name", HubError when the hub refuses.
    """
    check_name(name)
    from huggingface_hub import HfApi

    hub = HfApi(token=token)
    try:
        hub.create_repo(name, private=private, exist_ok=True)
        if revision is not None:
            hub.create_branch(name, branch=revision, exist_ok=True)
        commit = hub.upload_folder(repo_id=name, folder_path=folder, revision=revision, commit_message=message)
    except Exception as error:  # no token, no right, no network: each is an exception family of its own
        said = " ".join(str(error).split())[:300]
        raise HubError(
            f"The Hugging Face hub did not take {name} ({type(error).__name__}: {said}). Log in with `hf auth login`, or set "
            "HF_TOKEN, with a token that may write to it; check the name and the connection."
        ) from error
    return str(commit.commit_url)
