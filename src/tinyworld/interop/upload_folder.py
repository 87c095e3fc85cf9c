"""What is uploaded to the hub, as a folder: weights, config, and a card. Nothing in it names the machine that made it."""

import shutil
from pathlib import Path
from typing import Any

from tinyworld.core.errors import WeightsError
from tinyworld.core.files import MANIFEST
from tinyworld.interop.card import SIGNED, write_card
from tinyworld.interop.source import TAEHV, Exported
from tinyworld.models.fantasy.weights import WEIGHTS_NAME, save_branch
from tinyworld.models.taehv import weights

CARD = "README.md"


def write_folder(source: Exported, folder: Path, name: str) -> None:
    """`model.safetensors`, README.md, and for a TAEHV `config.json`. name: "org/name" of the repository, or what stands for it.

    A folder that this made before goes as it is: its card knows the run, and may have been edited. Raises WeightsError for
    weights that cannot be read.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if is_written(source.weights):
        for file in source.weights.iterdir():
            if file.is_file() and file.name != MANIFEST and not file.name.startswith("."):
                shutil.copyfile(file, folder / file.name)
        return
    if source.architecture == TAEHV:
        spec, tensors = source.taehv()
        weights.write_folder(folder, tensors, spec, source.about)
    else:
        _write_branch(source, folder)
    (folder / CARD).write_text(write_card(source, name), encoding="utf-8")


def is_written(place: Path) -> bool:
    """Whether `write_folder` made this folder."""
    card = place / CARD
    if not card.is_file() or not (place / WEIGHTS_NAME).is_file():
        return False
    return f"{SIGNED} " in card.read_text(encoding="utf-8", errors="replace")


def _write_branch(source: Exported, folder: Path) -> None:
    tensors, info = source.branch()
    if info.spec is None or info.base_digest is None:
        raise WeightsError(
            f"{info.file.name} states neither its sizes nor the transformer that it was trained with, so nobody could use it. "
            "Export a branch that tinyworld trained."
        )
    meta: dict[str, Any] = {**info.meta, "codec": None}  # a path of the machine that trained it
    meta |= {key: value for key, value in source.about.items() if key in ("step", "license")}
    save_branch(tensors, folder / WEIGHTS_NAME, info.spec, info.stage, info.base_digest, meta)
