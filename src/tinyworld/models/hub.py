"""Names of repositories on the Hugging Face hub, and what is said when the hub does not give one."""

import re
from pathlib import Path

from tinyworld.core.errors import ConfigError, MissingFileError

_NAME = re.compile(r"\w[\w.-]*/\w[\w.-]*")
_FILE_ENDINGS = (".pth", ".pt", ".safetensors")


def reads_as_name(text: str) -> bool:
    """Whether a text has the form "ORG/NAME". File names of weights have not."""
    return _NAME.fullmatch(text) is not None and not text.endswith(_FILE_ENDINGS)


def is_name(path: str | Path) -> bool:
    """Whether this is the name of a repository, and not a path: a text "ORG/NAME" that is nothing here."""
    return isinstance(path, str) and reads_as_name(path) and not Path(path).expanduser().exists()


def check_name(name: str) -> None:
    """Raises ConfigError unless this can be the name of a repository."""
    if not reads_as_name(name):
        raise ConfigError(
            f'{name!r} is no name of a repository: it must be "ORG/NAME", such as "my-team/taew2_1-small".'
        )


def said(error: Exception) -> str:
    """What the hub's client said, in one line: its errors are of dozens of families."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"


def not_given(what: str, name: str, error: Exception, otherwise: str, revision: str | None = None) -> MissingFileError:
    """The error that names both readings of a name: the path that is not there, and what the hub said.

    otherwise: a sentence on what a person can give instead.
    """
    at = f" at revision {revision!r}" if revision else ""
    return MissingFileError(
        f"No {what} at {name!r}: {Path.cwd() / name} does not exist, and the Hugging Face hub did not give the repository of "
        f"that name{at} ({said(error)}). It may not exist, be private or gated (accept its licence, then `hf auth login`), or "
        f"be out of reach. {otherwise}"
    )
