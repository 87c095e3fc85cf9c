"""Do depth, cameras and pictures of a data set belong together? Every sample is read to the end and gets a verdict."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tinyworld.data.worlds.conventions import FITS
from tinyworld.data.worlds.gather import Gathered, Intrinsics, gather
from tinyworld.data.worlds.judge import Judgement, Word, judge, path_length
from tinyworld.data.worlds.layout import WorldEntry, survey_worlds
from tinyworld.data.worlds.reprojection import PairErrors
from tinyworld.data.worlds.verify_picture import draw_row
from tinyworld.media.camera_formats import Convention

PAIRS = 12


@dataclass(frozen=True)
class Verdict:
    """The verdict on one sample. numbers: plain JSON values, empty where nothing could be measured. row: its part of the
    picture, uint8 h w 3, None where none was asked for or can be drawn."""

    id: str
    verdict: Word
    reasons: tuple[str, ...]
    remarks: tuple[str, ...]
    frames: int
    numbers: dict[str, Any]
    row: np.ndarray | None = None

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        own = {"id": self.id, "verdict": self.verdict, "reasons": list(self.reasons), "remarks": list(self.remarks)}
        return {**own, "frames": self.frames, **self.numbers}


def verify_worlds(
    dataset_base_path: str | Path,
    dataset_metadata_path: str | Path | None = None,
    pairs: int = PAIRS,
    convention: Convention | None = None,
    intrinsics: Intrinsics | None = None,
    draw: bool = False,
    on_progress: Callable[[int, int], None] | None = None,
) -> list[Verdict]:
    """A verdict on every sample of a data set, those that metadata.json gets wrong first; no bad sample ends it early.

    Every frame, depth map, camera and point map is read. Then pixels of some frames are carried into others by depth and
    cameras and compared there (`reprojection`); where another convention, unit or order fits clearly better, the verdict
    says which. pairs: of frames per clip, evenly spread. convention, intrinsics: for camera files that do not say it, see
    `media.camera_files.read_cameras`. draw: also make a row of pictures per sample.

    Raises what `survey_worlds` raises for a data set whose metadata.json cannot be used as a whole.
    """
    entries, problems = survey_worlds(dataset_base_path, dataset_metadata_path)
    verdicts = [Verdict(name, "bad", (reason,), (), 0, {}) for name, reason in problems]
    for verdict in _verify(entries, pairs, convention, intrinsics, draw):
        verdicts.append(verdict)
        if on_progress is not None:
            on_progress(len(verdicts) - len(problems), len(entries))
    return verdicts


def _verify(
    entries: list[WorldEntry], pairs: int, convention: Convention | None, intrinsics: Intrinsics | None, draw: bool
) -> Iterator[Verdict]:
    for entry in entries:
        found = gather(entry, pairs, convention, intrinsics)
        judgement = judge(found)
        frames = found.video.frames if found.video is not None else 0
        row = None
        if draw and found.evidence is not None and found.cameras is not None:
            row = draw_row(found.evidence, found.cameras, f"{entry.id}: {judgement.verdict}")
        yield Verdict(
            id=entry.id,
            verdict=judgement.verdict,
            reasons=tuple(judgement.reasons),
            remarks=tuple(judgement.remarks),
            frames=frames,
            numbers=_numbers(found, judgement),
            row=row,
        )


def _numbers(found: Gathered, judgement: Judgement) -> dict[str, Any]:
    """Photometric errors from 0 to 255, depth errors relative, lengths in metres, angles in degrees."""
    numbers: dict[str, Any] = {}
    if found.video is not None:
        numbers |= {"width": found.video.width, "height": found.video.height, "fps": found.video.fps}
    if found.depth is not None:
        numbers["depth"] = vars(found.depth) | {"empty": list(found.depth.empty)}
    if found.points is not None:
        numbers["points"] = vars(found.points)
    if found.cameras is not None and not found.faults:
        numbers["path_m"] = path_length(found.cameras)
    errors = judgement.errors
    if errors is None:
        return numbers
    numbers |= {
        "photometric": errors.photometric,
        "photometric_without": errors.photometric_still,
        "relative_depth_error": errors.depth,
        "relative_depth_error_without": errors.depth_still,
        "worst_relative_depth_error": max(pair.depth for pair in errors.pairs),
        "overlap": errors.overlap,
        "rotation_deg_per_pair": errors.rotation_deg,
        "step": errors.pairs[0].second - errors.pairs[0].first,
        "fits": errors.depth <= FITS,
        "pairs": [_pair(pair) for pair in errors.pairs],
    }
    if judgement.scales is not None:
        numbers["scale"] = judgement.scales.clip
        numbers["scale_of_pairs"] = list(judgement.scales.pairs)
    if judgement.suggestion is not None:
        better = judgement.suggestion.errors
        numbers["suggestion"] = {
            "words": judgement.suggestion.words,
            "photometric": better.photometric,
            "relative_depth_error": better.depth,
        }
    return numbers


def _pair(pair: PairErrors) -> dict[str, Any]:
    return {
        "first": pair.first,
        "second": pair.second,
        "photometric": pair.photometric,
        "relative_depth_error": pair.depth,
        "overlap": pair.overlap,
    }
