"""Latents, image tokens and text of training clips on disk, so that none of their encoders need run while training.

As in `data.latent_cache` the name of a file is a hash of all that its content depends on, so an entry is never out of date:
what changes has another name. Files appear whole, so any number of processes may fill the same folder; one that is cut short
or damaged counts as missing. A folder belongs to one codec, one text and one image encoder: training needs none of them, and
has to know whose entries to ask for.

    <root>/made_by.json                     digests of the encoders
    <root>/clips/ab/cd/abcd….safetensors    bf16: latents 16 t h w, first 16 1 h w (of the first frame alone), clip 257 1280
    <root>/texts/ab/cd/abcd….safetensors    bf16: text n D, up to the end of the prompt; once for all clips that share it
    <root>/videos/….json                    SHA-256 of a video file, by its path, size and modification time; encoders/ likewise

bf16, because text and image encoders compute in it, so that nothing of theirs is lost, and because the transformer is given
its latents in it; its rounding of 2^-9 of each number lies far below the noise that is added. Its range is that of fp32.
"""

import hashlib
import json
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from tinyworld.core.errors import DataError
from tinyworld.core.files import STAGING_PREFIX
from tinyworld.data.cut import Cut
from tinyworld.data.latent_cache import STALE_SECONDS, IncompleteCacheError
from tinyworld.data.publish import publish
from tinyworld.data.video_digests import VideoDigests

FORMAT = 1
"""Part of every key. Raise it with any change after which the same key would stand for other numbers."""
MADE_BY = "made_by.json"
COMMAND = "`tinyworld data cache RECIPE`"


class Conditions(NamedTuple):
    """What the encoders make of a clip, or with N in front of a batch; bf16.

    latents: 16 t h w. first: 16 1 h w, of the first frame alone. text: tokens D, zeros behind the prompt; None for a
    transformer that takes no text. clip: 257 1280, of the first frame; None for one that takes no image tokens.
    """

    latents: Tensor
    first: Tensor
    text: Tensor | None = None
    clip: Tensor | None = None

    def each(self, changed: Callable[[Tensor], Tensor]) -> "Conditions":
        """The same with every tensor changed alike."""
        return Conditions(*(None if tensor is None else changed(tensor) for tensor in self))  # type: ignore[arg-type]


def stack_conditions(parts: Sequence[Conditions | None]) -> Conditions | None:
    """Those of a batch; None when there are none (all samples of a data set have them or none has)."""
    known = [part for part in parts if part is not None]
    if not known:
        return None
    columns = [[tensor for tensor in column if tensor is not None] for column in zip(*known, strict=True)]
    return Conditions(*(torch.stack(column) if column else None for column in columns))  # type: ignore[arg-type]


@dataclass(frozen=True)
class Makers:
    """Digests of what made the entries. text, image: None for a transformer that takes neither; any is None where nothing of
    its kind was made yet."""

    codec: str | None = None
    text: str | None = None
    image: str | None = None

    def differing(self, other: "Makers") -> list[str]:
        """Which of them are not the same, of those that both have."""
        pairs = {
            "codec": (self.codec, other.codec),
            "text encoder": (self.text, other.text),
            "image encoder": (self.image, other.image),
        }
        return [name for name, (mine, theirs) in pairs.items() if mine and theirs and mine != theirs]


def read_makers(root: Path) -> Makers | None:
    """Whose entries a folder holds; None for one that was never filled."""
    try:
        values = json.loads((root / MADE_BY).read_bytes())
        return Makers(values.get("codec"), values.get("text"), values.get("image"))
    except (FileNotFoundError, ValueError, AttributeError):
        return None


def write_makers(root: Path, makers: Makers) -> None:
    """Say whose entries a folder holds; encoders that `makers` has not stay as they were."""
    known = read_makers(root)
    stated = (asdict(known) if known else {}) | {name: value for name, value in asdict(makers).items() if value}
    publish(root / MADE_BY, json.dumps({"format": FORMAT, **stated}, indent=2).encode())


class ConditionCache:
    """The entries of one set of encoders in the folder `root`. A cut here is the pictures of a clip.

    text_tokens: that a transformer takes; shorter prompts get zeros behind them.
    """

    def __init__(self, root: Path, makers: Makers, text_tokens: int) -> None:
        self.root = root
        self.makers = makers
        self.text_tokens = text_tokens
        self.videos = VideoDigests(root / "videos")
        self._clips, self._texts = _Entries(root / "clips"), _Entries(root / "texts")

    def get(self, cut: Cut, caption: str) -> Conditions:
        """What the encoders make of a clip. Raises DataError when its video could not be read when the cache was filled,
        OSError when it is gone, and IncompleteCacheError when there is no other reason for a gap."""
        facts = self._clip_facts(cut)  # an OSError here is the video's
        found = self._read(
            self._clips, facts, f"The latents of {cut.clip.path} (frames from {cut.start})", cut.clip.path
        )
        text = None if self.makers.text is None else self.text(caption)
        return Conditions(found["latents"], found["first"], text, found.get("clip"))

    def text(self, prompt: str) -> Tensor:
        """text_tokens D bf16. Raises IncompleteCacheError."""
        known = self._read(self._texts, self._text_facts(prompt), f"The text of the prompt {prompt[:60]!r}")["text"]
        padded = known.new_zeros(self.text_tokens, known.shape[1])
        padded[: len(known)] = known
        return padded

    def write_clip(self, cut: Cut, latents: Tensor, first: Tensor, clip: Tensor | None) -> int:
        """Store what was made of a cut; returns the bytes of the file. Replaces what is there.

        Raises DataError for numbers that are not finite, and OSError.
        """
        tensors = {"latents": latents, "first": first} | ({} if clip is None else {"clip": clip})
        return self._clips.write(self._clip_facts(cut), tensors, str(cut.clip.path))

    def write_text(self, prompt: str, text: Tensor) -> int:
        """Store tokens D of a prompt, without the zeros behind it; returns the bytes of the file. Raises as `write_clip`."""
        filled = text.ne(0).any(-1).nonzero()
        tokens = int(filled[-1]) + 1 if len(filled) else 0
        return self._texts.write(self._text_facts(prompt), {"text": text[:tokens]}, f"the prompt {prompt[:60]!r}")

    def missing_cuts(self, cuts: Sequence[Cut], deep: bool = False) -> list[Cut]:
        """Those without a complete entry. deep: read every entry to its end, else its head and its length only."""
        return [cut for cut in cuts if not self._holds(cut, deep)]

    def missing_texts(self, prompts: Sequence[str], deep: bool = False) -> list[str]:
        """As `missing_cuts`; none is ever missing for a transformer without text."""
        if self.makers.text is None:
            return []
        return [prompt for prompt in prompts if not self._texts.holds(self._text_facts(prompt), deep)]

    def require(self, cuts: Sequence[Cut], prompts: Sequence[str]) -> None:
        """Raise IncompleteCacheError unless everything is there; clips of videos that cannot be read need nothing."""
        gaps = [cut for cut in self.missing_cuts(cuts) if self.videos.fault(cut.clip.path) is None]
        texts = self.missing_texts(prompts)
        if gaps or texts:
            counts = [f"{len(gaps)} of {len(cuts)} clips"] if gaps else []
            counts += [f"{len(texts)} of {len(prompts)} prompts"] if texts else []
            self._refuse(
                f"{' and '.join(counts)} are not in the cache (it was filled for other sizes, cuts or videos, or not to its "
                "end)"
            )

    def sweep(self, cuts: Sequence[Cut], prompts: Sequence[str]) -> tuple[int, int]:
        """Remove every entry that is not of these; (entries, bytes) removed."""
        clips = {_key(self._clip_facts(cut)) for cut in cuts if cut.clip.path.is_file()}
        texts = set() if self.makers.text is None else {_key(self._text_facts(prompt)) for prompt in prompts}
        (one, size), (other, more) = self._clips.sweep(clips), self._texts.sweep(texts)
        return one + other, size + more

    def _holds(self, cut: Cut, deep: bool) -> bool:
        try:
            return self._clips.holds(self._clip_facts(cut), deep)
        except OSError:
            return False

    def _clip_facts(self, cut: Cut) -> dict[str, Any]:
        """All that the latents of a cut depend on. Raises OSError when its video is gone."""
        return {
            "format": FORMAT,
            "codec": self.makers.codec,
            "image": self.makers.image,
            "video": self.videos.digest(cut.clip.path),
            "frames": list(cut.numbers),
            "region": list(cut.region),
            "size": [cut.height, cut.width],
        }

    def _text_facts(self, prompt: str) -> dict[str, Any]:
        return {"format": FORMAT, "text": self.makers.text, "prompt": prompt}

    def _read(
        self, entries: "_Entries", facts: dict[str, Any], what: str, video: Path | None = None
    ) -> dict[str, Tensor]:
        try:
            found = entries.read(facts)
        except OSError as error:
            self._refuse(f"{what} cannot be read ({error})")
        fault = self.videos.fault(video) if found is None and video is not None else None
        if fault is not None:
            raise DataError(f"{video}: no latents, {fault}")
        if found is None:
            self._refuse(f"{what} is missing or damaged")
        return found

    def _refuse(self, what: str) -> NoReturn:
        raise IncompleteCacheError(
            f"{what}: {self.root}. Fill it with {COMMAND} and the same flags, which computes only what is missing (key: "
            "data.condition_cache)."
        )


class _Entries:
    """Tensors under the names of facts, one file each."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, facts: Mapping[str, Any]) -> Path:
        key = _key(facts)
        return self.folder / key[:2] / key[2:4] / f"{key}.safetensors"

    def read(self, facts: Mapping[str, Any]) -> dict[str, Tensor] | None:
        """None when there is no such entry or it is damaged. Raises OSError."""
        try:
            with safe_open(self.path(facts), "pt") as file:
                stated = file.metadata() or {}
                # Copies: what is read here may outlive the file, which is mapped, and goes when the folder is pruned.
                tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
        except (FileNotFoundError, SafetensorError):
            return None
        whole = stated.get("facts") == _text(facts) and stated.get("sha256") == _checksum(tensors)
        return tensors if whole else None

    def write(self, facts: Mapping[str, Any], tensors: Mapping[str, Tensor], what: str) -> int:
        kept = {name: tensor.detach().to("cpu", torch.bfloat16).contiguous() for name, tensor in tensors.items()}
        broken = [name for name, tensor in kept.items() if not tensor.isfinite().all()]
        if broken:
            raise DataError(
                f"{' and '.join(broken)} of {what} hold numbers that are not finite: they cannot be kept. Check the weights "
                "that made them (keys: model.codec_path, model.encoders_path)."
            )
        payload = save(kept, {"facts": _text(facts), "sha256": _checksum(kept)})
        publish(self.path(facts), payload)
        return len(payload)

    def holds(self, facts: Mapping[str, Any], deep: bool) -> bool:
        try:
            if deep:
                return self.read(facts) is not None
            with safe_open(self.path(facts), "pt") as file:  # refuses a file that is shorter than its head says
                return bool((file.metadata() or {}).get("facts") == _text(facts))
        except (OSError, SafetensorError):
            return False

    def sweep(self, wanted: Collection[str]) -> tuple[int, int]:
        removed = size = 0
        for file in self.folder.glob("??/??/*"):
            stale = file.name.startswith(STAGING_PREFIX) and time.time() - file.stat().st_mtime > STALE_SECONDS
            if stale or (file.suffix == ".safetensors" and file.stem not in wanted):
                removed, size = removed + (not stale), size + file.stat().st_size
                file.unlink()
        return removed, size


def _text(facts: Mapping[str, Any]) -> str:
    return json.dumps(facts, sort_keys=True)


def _key(facts: Mapping[str, Any]) -> str:
    return hashlib.sha256(_text(facts).encode()).hexdigest()


def _checksum(tensors: Mapping[str, Tensor]) -> str:
    """Of names, types, shapes and numbers."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
        digest.update(tensor.contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
