"""Latents, image tokens and text of training clips on disk, so that none of their encoders need run while training.

They are `Entries`, so none is ever out of date, and any number of processes may fill the same folder. It belongs to one codec,
one text and one image encoder: training needs none of them, and has to know whose entries to ask for.

    <root>/made_by.json                     digests of the encoders
    <root>/clips/ab/cd/abcd….safetensors    bf16: latents 16 t h w, first 16 1 h w (of the first frame alone), clip 257 1280
    <root>/texts/ab/cd/abcd….safetensors    bf16: text n D, up to the end of the prompt; once for all clips that share it
    <root>/videos/….json                    SHA-256 of a video file, by its path, size and modification time; encoders/ likewise

bf16, because text and image encoders compute in it, so that nothing of theirs is lost, and because the transformer is given
its latents in it; its rounding of 2^-9 of each number lies far below the noise that is added. Its range is that of fp32.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import torch
from torch import Tensor

from tinyworld.core.errors import DataError
from tinyworld.data.cut import Cut
from tinyworld.data.entries import Entries, IncompleteCacheError
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
        self._clips, self._texts = Entries(root / "clips", FORMAT), Entries(root / "texts", FORMAT)

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
        return self._clips.write(self._clip_facts(cut), _kept(tensors, str(cut.clip.path)))

    def write_text(self, prompt: str, text: Tensor) -> int:
        """Store tokens D of a prompt, without the zeros behind it; returns the bytes of the file. Raises as `write_clip`."""
        filled = text.ne(0).any(-1).nonzero()
        tokens = int(filled[-1]) + 1 if len(filled) else 0
        return self._texts.write(
            self._text_facts(prompt), _kept({"text": text[:tokens]}, f"the prompt {prompt[:60]!r}")
        )

    def missing_cuts(self, cuts: Sequence[Cut], deep: bool = False) -> list[Cut]:
        """Those without a complete entry. deep: read every entry to its end, else its head and its length only."""
        return self._clips.missing(cuts, self._clip_facts, deep)

    def missing_texts(self, prompts: Sequence[str], deep: bool = False) -> list[str]:
        """As `missing_cuts`; none is ever missing for a transformer without text."""
        return [] if self.makers.text is None else self._texts.missing(prompts, self._text_facts, deep)

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
        clips = {self._clips.key(self._clip_facts(cut)) for cut in cuts if cut.clip.path.is_file()}
        texts = set() if self.makers.text is None else {self._texts.key(self._text_facts(prompt)) for prompt in prompts}
        (one, size), (other, more) = self._clips.sweep(clips), self._texts.sweep(texts)
        return one + other, size + more

    def _clip_facts(self, cut: Cut) -> dict[str, Any]:
        """All that the latents of a cut depend on. Raises OSError when its video is gone."""
        return {
            "codec": self.makers.codec,
            "image": self.makers.image,
            "video": self.videos.digest(cut.clip.path),
            "frames": list(cut.numbers),
            "region": list(cut.region),
            "size": [cut.height, cut.width],
        }

    def _text_facts(self, prompt: str) -> dict[str, Any]:
        return {"text": self.makers.text, "prompt": prompt}

    def _read(self, entries: Entries, facts: dict[str, Any], what: str, video: Path | None = None) -> dict[str, Tensor]:
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


def _kept(tensors: Mapping[str, Tensor], what: str) -> dict[str, Tensor]:
    """As they are stored. what: they belong to. Raises DataError for numbers that are not finite."""
    kept = {name: tensor.detach().to("cpu", torch.bfloat16).contiguous() for name, tensor in tensors.items()}
    broken = [name for name, tensor in kept.items() if not tensor.isfinite().all()]
    if broken:
        raise DataError(
            f"{' and '.join(broken)} of {what} hold numbers that are not finite: they cannot be kept. Check the weights "
            "that made them (keys: model.codec_path, model.encoders_path)."
        )
    return kept
