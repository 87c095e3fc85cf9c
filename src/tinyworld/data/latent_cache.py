"""Latents of training clips on disk, so that the reference VAE that made them need not run while training.

One file per clip, named by a hash of all that its latents depend on: the content of the video, what of it was shown to
the reference VAE (frames, region, size, mirroring, colours) and that VAE itself. So an entry is never out of date: what
changes has another name. Changing one video, or adding one, leaves all other entries valid.

    <root>/latents/ab/cd/abcd….safetensors   mean and logvar, fp16 L c h w; the metadata says what they belong to
    <root>/videos/….json                     SHA-256 of a video file, by its path, size and modification time

Files are written under another name and renamed, so any number of processes may fill the same folder. An entry that is
cut short or damaged counts as missing.
"""

import hashlib
import json
import time
from collections.abc import Collection, Sequence
from dataclasses import astuple
from pathlib import Path
from typing import Any, NoReturn

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from tinyworld.core.errors import DataError
from tinyworld.core.files import STAGING_PREFIX
from tinyworld.data.cut import Cut
from tinyworld.data.publish import publish
from tinyworld.data.scan import ClipRef
from tinyworld.data.video_digests import VideoDigests

Latents = tuple[Tensor, Tensor]
"""Mean and log variance of the reference VAE's posterior, L c h w each."""

FORMAT = 1
"""Part of every key. Raise it with any change after which the same key would stand for other latents: in how a cut's
pixels are read, resized or recoloured, in how the reference VAE is given them, or in how an entry is stored."""
LOGVAR_RANGE = (-30.0, 20.0)
"""As diffusers clamps it: standard deviations from 3e-7 to 2e4, which fp16 holds."""
STALE_SECONDS = 3600.0
"""A staging file that old belongs to a process that is gone."""


class IncompleteCacheError(DataError):
    """The cache lacks latents that training needs. Filling it mends that; taking another clip would hide it."""


class LatentCache:
    """The latents that one reference VAE made, in the folder `root`. A cut here is what the VAE is given.

    teacher_digest: of all in the VAE that decides its latents.
    """

    def __init__(self, root: Path, teacher_digest: str) -> None:
        self.root = root
        self.teacher_digest = teacher_digest
        self.videos = VideoDigests(root / "videos")
        self._latents = root / "latents"

    def facts(self, cut: Cut) -> dict[str, Any]:
        """All that the latents of a cut depend on. Raises OSError when its video is gone."""
        return {
            "format": FORMAT,
            "teacher": self.teacher_digest,
            "video": self.videos.digest(cut.clip.path),
            "frames": list(cut.numbers),
            "region": list(cut.region),
            "size": [cut.height, cut.width],
            "mirror": cut.mirror,
            "colour": None if cut.colour is None else list(astuple(cut.colour)),
        }

    def key(self, cut: Cut) -> str:
        """Name of the entry: SHA-256 of the facts. Raises OSError when the video is gone."""
        return hashlib.sha256(_text(self.facts(cut)).encode()).hexdigest()

    def path(self, cut: Cut) -> Path:
        key = self.key(cut)
        return self._latents / key[:2] / key[2:4] / f"{key}.safetensors"

    def read(self, cut: Cut) -> Latents | None:
        """(mean, log variance), fp32; None when there is no such entry or it is damaged. Raises OSError."""
        try:
            with safe_open(self.path(cut), "pt") as file:
                stated, tensors = file.metadata() or {}, [file.get_tensor(name) for name in ("mean", "logvar")]
        except (FileNotFoundError, SafetensorError):
            return None
        if stated.get("facts") != _text(self.facts(cut)) or stated.get("sha256") != _checksum(tensors):
            return None
        return tensors[0].float(), tensors[1].float()

    def get(self, cut: Cut) -> Latents:
        """As `read`. Raises DataError when the video could not be read when the cache was filled, and
        IncompleteCacheError when there is no other reason for the gap, or the cache itself cannot be read."""
        self.videos.digest(cut.clip.path)  # an OSError here is the video's
        try:
            found = self.read(cut)
        except OSError as error:
            self._refuse(f"The latents of {cut.clip.path} cannot be read ({error})")
        if found is None:
            fault = self.videos.fault(cut.clip.path)
            if fault is not None:
                raise DataError(f"{cut.clip.path}: no latents, {fault}")
            self._refuse(f"The latents of {cut.clip.path} (frames from {cut.start}) are missing or damaged")
        return found

    def write(self, cut: Cut, mean: Tensor, logvar: Tensor) -> int:
        """Store the latents of a cut; returns the bytes of the file. Replaces what is there.

        Raises DataError for numbers that fp16 cannot hold, and OSError.
        """
        pair = [part.to("cpu", torch.float16).contiguous() for part in (mean, logvar.clamp(*LOGVAR_RANGE))]
        if not all(bool(part.isfinite().all()) for part in pair):
            raise DataError(
                f"the latents of {cut.clip.path} are not finite in fp16 (largest {float(mean.abs().max()):g}): they cannot "
                "be kept. Check the reference VAE and its number type (key: teacher.ref_vae_dtype)."
            )
        payload = save(
            {"mean": pair[0], "logvar": pair[1]}, {"facts": _text(self.facts(cut)), "sha256": _checksum(pair)}
        )
        publish(self.path(cut), payload)
        return len(payload)

    def missing(self, cuts: Sequence[Cut], deep: bool = False) -> list[Cut]:
        """Those without a complete entry. deep: read every entry to its end, else its head and its length only."""
        return [cut for cut in cuts if not self._holds(cut, deep)]

    def require(self, cuts: Sequence[Cut]) -> None:
        """Raise IncompleteCacheError unless every cut has an entry; those of videos that cannot be read need none."""
        gaps = [cut for cut in self.missing(cuts) if self.videos.fault(cut.clip.path) is None]
        if gaps:
            self._refuse(f"{len(gaps)} of {len(cuts)} latents are missing")

    def mark_unreadable(self, clip: ClipRef, reason: str) -> None:
        """Remember that a video has no latents because it cannot be read, until its content changes."""
        self.videos.mark(clip.path, reason)

    def sweep(self, wanted: Collection[str]) -> tuple[int, int]:
        """Remove every entry whose key is not among the wanted, of whatever reference VAE; (entries, bytes) removed."""
        removed = size = 0
        for file in self._latents.glob("??/??/*"):
            stale = file.name.startswith(STAGING_PREFIX) and time.time() - file.stat().st_mtime > STALE_SECONDS
            if stale or (file.suffix == ".safetensors" and file.stem not in wanted):
                removed, size = removed + (not stale), size + file.stat().st_size
                file.unlink()
        return removed, size

    def _holds(self, cut: Cut, deep: bool) -> bool:
        try:
            if deep:
                return self.read(cut) is not None
            with safe_open(self.path(cut), "pt") as file:  # refuses a file that is shorter than its head says
                return bool((file.metadata() or {}).get("facts") == _text(self.facts(cut)))
        except (OSError, SafetensorError):
            return False

    def _refuse(self, what: str) -> NoReturn:
        raise IncompleteCacheError(
            f"{what} in {self.root}. Fill it with `tinyworld data cache RECIPE` and the same flags, which computes only what "
            "is missing; or train without it: data.latent_cache=null."
        )


def _text(facts: dict[str, Any]) -> str:
    return json.dumps(facts, sort_keys=True)


def _checksum(tensors: Sequence[Tensor]) -> str:
    """Of types, shapes and numbers."""
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(f"{tensor.dtype} {list(tensor.shape)}".encode())
        digest.update(tensor.contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
