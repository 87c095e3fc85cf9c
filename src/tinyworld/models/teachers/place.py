"""Where a teacher lies: a VAE folder, a pipeline folder with a `vae/` subfolder, or a repository of the Hugging Face hub."""

from dataclasses import dataclass
from pathlib import Path

from tinyworld.core.errors import MissingFileError
from tinyworld.core.files import find
from tinyworld.models.hub import not_given, reads_as_name

KEY = "teacher.ref_vae_path"
CONFIG_NAME = "config.json"
WEIGHTS_NAME = "diffusion_pytorch_model.safetensors"
INDEX_NAME = f"{WEIGHTS_NAME}.index.json"
SUBFOLDER = "vae"


@dataclass(frozen=True)
class Place:
    """The folder that holds `config.json`, and the hub repository whose weights may still have to be fetched into it."""

    folder: Path
    repository: str | None = None

    def with_weights(self) -> Path:
        """The folder with its weight files in it. Raises MissingFileError when the hub does not give them."""
        if self.repository is None:
            return self.folder
        from huggingface_hub import snapshot_download

        prefix = f"{SUBFOLDER}/" if self.folder.name == SUBFOLDER else ""
        shards = WEIGHTS_NAME.replace(".", "-*.", 1)
        wanted = [prefix + name for name in (CONFIG_NAME, WEIGHTS_NAME, INDEX_NAME, shards)]
        try:
            return Path(snapshot_download(self.repository, allow_patterns=wanted)) / prefix
        except Exception as error:  # the hub's client fails in dozens of ways; all of them leave us without weights
            raise _not_from_hub(self.repository, error) from error


def locate(path: str | Path) -> Place:
    """The place of a teacher; of a hub repository only the config is fetched.

    Raises MissingFileError naming every place that was looked at.
    """
    given = Path(path).expanduser()
    if not given.exists() and reads_as_name(str(path)):
        return _on_hub(str(path))
    folder = find(path, what="teacher VAE", key=KEY)
    for candidate in (folder, folder / SUBFOLDER):
        if (candidate / CONFIG_NAME).is_file():
            return Place(candidate)
    if folder.is_file():
        raise MissingFileError(
            f"{folder} is a file; a teacher is a diffusers folder, with {CONFIG_NAME} beside {WEIGHTS_NAME}. "
            f"Give that folder (key: {KEY})."
        )
    raise MissingFileError(
        f"{folder} holds no teacher: there is no {CONFIG_NAME} in it, nor in {SUBFOLDER}/ below it. Give a diffusers VAE "
        f"folder, or a pipeline folder with a {SUBFOLDER}/ subfolder (key: {KEY})."
    )


def _on_hub(repository: str) -> Place:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError

    try:
        try:
            config = hf_hub_download(repository, f"{SUBFOLDER}/{CONFIG_NAME}")
        except EntryNotFoundError:
            config = hf_hub_download(repository, CONFIG_NAME)
    except Exception as error:  # not found, gated, offline, no network: each is an exception family of its own
        raise _not_from_hub(repository, error) from error
    return Place(Path(config).parent, repository)


def _not_from_hub(repository: str, error: Exception) -> MissingFileError:
    otherwise = (
        f"A local folder works as well: download the repository's {SUBFOLDER}/ folder ({CONFIG_NAME} and {WEIGHTS_NAME}) and "
        f"give its path (key: {KEY})."
    )
    return not_given("teacher VAE", repository, error, otherwise)
