"""Tensors on disk under the names of what they depend on: what the caches of training clips are made of.

One file per entry, named by a hash of its facts: all that its tensors depend on. So an entry is never out of date: what
changes has another name.

    <folder>/ab/cd/abcd….safetensors    the tensors; the metadata holds the facts as text and a checksum of the tensors

Files are written under another name and renamed, so any number of processes may fill the same folder. An entry that is
cut short or damaged counts as missing.
"""

import hashlib
import json
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from tinyworld.core.errors import DataError
from tinyworld.core.files import STAGING_PREFIX
from tinyworld.data.publish import publish

STALE_SECONDS = 3600.0
"""A staging file that old belongs to a process that is gone."""
Facts = Mapping[str, Any]
Item = TypeVar("Item")


class IncompleteCacheError(DataError):
    """A cache lacks what training needs. Filling it mends that; taking another clip would hide it."""


class Entries:
    """The entries in one folder, which need not exist yet.

    version: part of every key, to be raised with any change after which the same facts would stand for other tensors.
    parts: the tensors of an entry where all have the same; checksums then go by their order, else by their names.
    """

    def __init__(self, folder: Path, version: int, parts: Sequence[str] = ()) -> None:
        self.folder = folder
        self.version = version
        self.parts = tuple(parts)

    def key(self, facts: Facts) -> str:
        """Name of the entry: SHA-256 of the facts and the version."""
        return hashlib.sha256(self._text(facts).encode()).hexdigest()

    def path(self, facts: Facts) -> Path:
        key = self.key(facts)
        return self.folder / key[:2] / key[2:4] / f"{key}.safetensors"

    def read(self, facts: Facts) -> dict[str, Tensor] | None:
        """The tensors as they were written; None when there is no such entry or it is damaged. Raises OSError."""
        try:
            with safe_open(self.path(facts), "pt") as file:
                stated = file.metadata() or {}
                # Copies: what is read here may outlive the file, which is mapped, and goes when the folder is pruned.
                tensors = {name: file.get_tensor(name).clone() for name in self.parts or file.keys()}
        except (FileNotFoundError, SafetensorError):
            return None
        whole = stated.get("facts") == self._text(facts) and stated.get("sha256") == self._checksum(tensors)
        return tensors if whole else None

    def write(self, facts: Facts, tensors: Mapping[str, Tensor]) -> int:
        """Store tensors of the CPU, contiguous; returns the bytes of the file. Replaces what is there. Raises OSError."""
        payload = save(dict(tensors), {"facts": self._text(facts), "sha256": self._checksum(tensors)})
        publish(self.path(facts), payload)
        return len(payload)

    def missing(self, items: Sequence[Item], facts: Callable[[Item], Facts], deep: bool = False) -> list[Item]:
        """Those without a complete entry, or whose facts cannot be told for an OSError.

        facts: of an item. deep: read every entry to its end, else its head and its length only.
        """
        return [item for item in items if not self._holds(item, facts, deep)]

    def sweep(self, wanted: Collection[str]) -> tuple[int, int]:
        """Remove every entry whose key is not among the wanted, and what killed writers left; (entries, bytes) removed."""
        removed = size = 0
        for file in self.folder.glob("??/??/*"):
            stale = file.name.startswith(STAGING_PREFIX) and time.time() - file.stat().st_mtime > STALE_SECONDS
            if stale or (file.suffix == ".safetensors" and file.stem not in wanted):
                removed, size = removed + (not stale), size + file.stat().st_size
                file.unlink()
        return removed, size

    def _holds(self, item: Item, facts: Callable[[Item], Facts], deep: bool) -> bool:
        try:
            stated = facts(item)
            if deep:
                return self.read(stated) is not None
            with safe_open(self.path(stated), "pt") as file:  # refuses a file that is shorter than its head says
                return bool((file.metadata() or {}).get("facts") == self._text(stated))
        except (OSError, SafetensorError):
            return False

    def _text(self, facts: Facts) -> str:
        return json.dumps({"format": self.version, **facts}, sort_keys=True)

    def _checksum(self, tensors: Mapping[str, Tensor]) -> str:
        """Of types, shapes and numbers, and of names where they tell anything."""
        digest = hashlib.sha256()
        for name in self.parts or sorted(tensors):
            tensor, label = tensors[name], "" if self.parts else f"{name} "
            digest.update(f"{label}{tensor.dtype} {list(tensor.shape)}".encode())
            digest.update(tensor.contiguous().view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()
