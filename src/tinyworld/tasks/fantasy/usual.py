"""What training clips are in the mean: a camera track and a depth map, baselines for a model that has learned no more.

Labels alone are read, of a bounded number of clips: a data set of any size costs the same.
"""

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from tinyworld.core.errors import UserError
from tinyworld.core.geometry import encode_pose
from tinyworld.data.worlds.dataset import WorldDataset
from tinyworld.data.worlds.scan import WorldRef
from tinyworld.metrics.geometry import mean_depth_map
from tinyworld.metrics.trajectory import mean_track

CLIPS = 64
"""Training samples that the means are taken over."""


@dataclass(frozen=True, eq=False)
class Usual:
    """track: pose encodings T 9. depth: the middle frame's, H W, in units of a clip's scale. Both float64."""

    track: Tensor
    depth: Tensor


def usual(dataset: WorldDataset, worlds: Sequence[WorldRef], height: int, width: int, n_frames: int) -> Usual | None:
    """The means over up to CLIPS of the samples, evenly chosen, each cut as for validation. None where no clip has a scale.

    A sample that cannot be read is left out here; it is met, and counted, in training.
    """
    tracks, maps = [], []
    for world in evenly(worlds, CLIPS):
        with contextlib.suppress(UserError, OSError):
            known = dataset.held_out_geometry(world, height, width, n_frames)
            if known is None:
                continue
            middle = n_frames // 2
            tracks.append(encode_pose(known.cameras))
            maps.append((known.depth[middle].clone(), known.mask[middle].clone()))  # a view would keep all frames
    if not any(bool(mask.any()) for _, mask in maps):
        return None
    return Usual(mean_track(tracks), mean_depth_map(maps))


def evenly(worlds: Sequence[WorldRef], most: int) -> list[WorldRef]:
    """Up to `most` of them, spread over all: neighbours are often of one place."""
    count = min(most, len(worlds))
    return [worlds[place * len(worlds) // count] for place in range(count)]
