"""Latents of training clips on disk, so that the reference VAE that made them need not run while training.

One of the `Entries` per clip, named by a hash of all that its latents depend on: the content of the video, what of it was
shown to the reference VAE (frames, region, size, mirroring, colours) and that VAE itself. Changing one video, or adding
one, leaves all other entries valid.

    <root>/latents/ab/cd/abcd….safetensors   mean and logvar, fp16 L c h w; the metadata says what they belong to
    <root>/videos/….json                     SHA-256 of a video file, by its path, size and modification time
"""

from collections.abc import Collection, Sequence
from dataclasses import astuple
from pathlib import Path
from typing import Any, NoReturn

import torch
from torch import Tensor

from tinyworld.core.errors import DataError
from tinyworld.data.cut import Cut
from tinyworld.data.entries import Entries, IncompleteCacheError
from tinyworld.data.video_digests import VideoDigests

Latents = tuple[Tensor, Tensor]
"""Mean and log variance of the reference VAE's posterior, L c h w each."""

FORMAT = 1
"""Part of every key. Raise it with any change after which the same key would stand for other latents: in how a cut's
pixels are read, resized or recoloured, in how the reference VAE is given them, or in how an entry is stored."""
LOGVAR_RANGE = (-30.0, 20.0)
"""As diffusers clamps it: standard deviations from 3e-7 to 2e4, which fp16 holds."""


class LatentCache:
    """The latents that one reference VAE made, in the folder `root`. A cut here is what the VAE is given.

    teacher_digest: of all in the VAE that decides its latents.
    """

    def __init__(self, root: Path, teacher_digest: str) -> None:
        self.root = root
        self.teacher_digest = teacher_digest
        self.videos = VideoDigests(root / "videos")
        self._entries = Entries(root / "latents", FORMAT, ("mean", "logvar"))

    def facts(self, cut: Cut) -> dict[str, Any]:
        """All that the latents of a cut depend on. Raises OSError when its video is gone."""
        return {
            "teacher": self.teacher_digest,
            "video": self.videos.digest(cut.clip.path),
            "frames": list(cut.numbers),
            "region": list(cut.region),
            "size": [cut.height, cut.width],
            "mirror": cut.mirror,
            "colour": None if cut.colour is None else list(astuple(cut.colour)),
        }

    def key(self, cut: Cut) -> str:
        """Name of the entry. Raises OSError when the video is gone."""
        return self._entries.key(self.facts(cut))

    def path(self, cut: Cut) -> Path:
        return self._entries.path(self.facts(cut))

    def read(self, cut: Cut) -> Latents | None:
        """(mean, log variance), fp32; None when there is no such entry or it is damaged. Raises OSError."""
        return self._read(self.facts(cut))

    def get(self, cut: Cut) -> Latents:
        """As `read`. Raises DataError when the video could not be read when the cache was filled, and
        IncompleteCacheError when there is no other reason for the gap, or the cache itself cannot be read."""
        facts = self.facts(cut)  # an OSError here is the video's
        try:
            found = self._read(facts)
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
        return self._entries.write(self.facts(cut), {"mean": pair[0], "logvar": pair[1]})

    def missing(self, cuts: Sequence[Cut], deep: bool = False) -> list[Cut]:
        """Those without a complete entry. deep: read every entry to its end, else its head and its length only."""
        return self._entries.missing(cuts, self.facts, deep)

    def require(self, cuts: Sequence[Cut]) -> None:
        """Raise IncompleteCacheError unless every cut has an entry; those of videos that cannot be read need none."""
        gaps = [cut for cut in self.missing(cuts) if self.videos.fault(cut.clip.path) is None]
        if gaps:
            self._refuse(f"{len(gaps)} of {len(cuts)} latents are missing")

    def sweep(self, wanted: Collection[str]) -> tuple[int, int]:
        """Remove every entry whose key is not among the wanted, of whatever reference VAE; (entries, bytes) removed."""
        return self._entries.sweep(wanted)

    def _read(self, facts: dict[str, Any]) -> Latents | None:
        found = self._entries.read(facts)
        return None if found is None else (found["mean"].float(), found["logvar"].float())

    def _refuse(self, what: str) -> NoReturn:
        raise IncompleteCacheError(
            f"{what} in {self.root}. Fill it with `tinyworld data cache RECIPE` and the same flags, which computes only what "
            "is missing; or train without it: data.latent_cache=null."
        )
