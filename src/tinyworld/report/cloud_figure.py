"""Points and cameras of worlds in the coordinates of the viewer's box, ready for plotly.

The box: x right, y forward, z up (plotly turns about z), from the world's OpenCV axes (x right, y down, z forward); its
middle is the origin, and its longest edge is EDGE. Axes are drawn one to one, so nothing is stretched.
"""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from tinyworld.core.geometry import Cameras, inverse, to_world
from tinyworld.core.rng import derive_seed
from tinyworld.media.colour import ANCHORS, colour_depth, depth_range
from tinyworld.report.shown import ShownWorld

EDGE = 2.0
MARGIN = 0.04
UNSURE = 10.0
"""Percent of the points, the least sure ones, that are left out."""
OUTSIDE = 1.0
"""Percent of the points beyond each face of the box: a few far ones would make everything else small."""
FRUSTUM = 0.12
"""Depth of a drawn camera, in median depths of the scene."""
FARTHEST = 20.0
"""Median depths: cameras estimated farther away than that do not make the box larger."""
STEPS = 32767


@dataclass(frozen=True)
class Sampled:
    """N points of a world: places float64 N 3 (OpenCV axes), and their colours uint8 N 3 by what they tell."""

    places: np.ndarray
    colours: dict[str, np.ndarray]

    def inside(self, box: "Box") -> "Sampled":
        """Only those in the box."""
        kept = (np.abs(box.placed(self.places)) <= box.edges / 2).all(-1)
        return Sampled(self.places[kept], {name: colours[kept] for name, colours in self.colours.items()})


def sampled(world: ShownWorld, frames: np.ndarray, most: int) -> Sampled:
    """At most that many of the world's surer points, drawn evenly. frames: uint8 T H W 3, where the colours come from."""
    points, valid = world.placed()
    if world.confidence is not None and valid.any():
        valid &= world.confidence >= np.percentile(world.confidence[valid], UNSURE)
    chosen = np.flatnonzero(valid)
    if len(chosen) > most:
        rng = np.random.default_rng(derive_seed("points of the viewer", len(chosen), most))
        chosen = np.sort(rng.choice(chosen, most, replace=False))
    time, row, column = np.unravel_index(chosen, valid.shape)
    height, width = frames.shape[1:3]
    picture = frames[time, row * height // valid.shape[1], column * width // valid.shape[2]]
    known = world.known
    depth = colour_depth(world.depth, known, *depth_range(world.depth, known))
    colours = {"video": picture, "depth": depth[time, row, column]}
    if world.confidence is not None:
        colours["confidence"] = _confidence_colours(world.confidence[time, row, column])
    return Sampled(points[time, row, column], colours)


def _confidence_colours(confidence: np.ndarray) -> np.ndarray:
    """uint8 N 3 by rank: the surest are bright. Confidences have no scale of their own, only their order says something."""
    rank = np.argsort(np.argsort(confidence, kind="stable"), kind="stable") / max(len(confidence) - 1, 1)
    place = (1 - rank) * (len(ANCHORS) - 2)
    return np.stack([np.interp(place, np.arange(len(ANCHORS)), ANCHORS[:, c]) for c in range(3)], -1).astype(np.uint8)


@dataclass(frozen=True)
class Box:
    """What is shown: the middle (OpenCV axes), the length of a box unit in the world's, and the box's three edges."""

    middle: np.ndarray
    unit: float
    edges: np.ndarray

    def placed(self, points: np.ndarray) -> np.ndarray:
        """World points ... 3 in the box's coordinates."""
        return _turned((points - self.middle) / self.unit)


def _turned(vectors: np.ndarray) -> np.ndarray:
    x, y, z = np.moveaxis(vectors, -1, 0)
    return np.stack([x, z, -y], -1)


def box_of(clouds: Sequence[np.ndarray], frusta: Sequence[np.ndarray], depth: float) -> Box:
    """The box around nearly all points (N 3 each) and the cameras (... 3 each); depth: the scene's median."""
    reach = [np.percentile(cloud, [OUTSIDE, 100 - OUTSIDE], axis=0) for cloud in clouds if len(cloud)]
    drawn = np.concatenate([frustum.reshape(-1, 3) for frustum in frusta])
    corners = np.concatenate([*reach, drawn[(np.abs(drawn) <= FARTHEST * depth).all(-1)], np.zeros((1, 3))])
    low, high = corners.min(0), corners.max(0)
    size = (high - low) * (1 + 2 * MARGIN)
    largest = max(float(size.max()), 1e-6)
    x, y, z = np.maximum(size, 0.05 * largest) / (largest / EDGE)
    return Box((low + high) / 2, largest / EDGE, np.array([x, z, y]))


@dataclass(frozen=True)
class Together:
    """Worlds placed in one box, so that places compare: the points of each that lie in it, and the corners of its cameras."""

    clouds: list[Sampled]
    frusta: list[np.ndarray]
    box: Box
    depth: float

    def axes(self, cameras: Cameras) -> dict[str, Any]:
        """What the page's script knows of the box; it first looks as these cameras do."""
        view = first_view(cameras, self.depth, self.box)
        return {"step": EDGE / 2 / STEPS, "edges": rounded(self.box.edges), "view": view}


def together(shown: Sequence[tuple[ShownWorld, np.ndarray]], sizes: Sequence[ShownWorld], most: int) -> Together:
    """Worlds with the frames that colour them, at most that many points of each. sizes: worlds whose depth says how large a
    camera is drawn."""
    depth = median_depth(sizes)
    clouds = [sampled(world, frames, most) for world, frames in shown]
    frusta = [frusta_of(world.cameras, FRUSTUM * depth) for world, _ in shown]
    box = box_of([cloud.places for cloud in clouds], frusta, depth)
    return Together([cloud.inside(box) for cloud in clouds], frusta, box, depth)


def median_depth(worlds: Sequence[ShownWorld]) -> float:
    """Of the first world that has any depth; 1 without."""
    for world in worlds:
        if world.known.any():
            return float(np.median(world.depth[world.known]))
    return 1.0


def frusta_of(cameras: Cameras, depth: float) -> np.ndarray:
    """float64 T 5 3: each camera's centre and the corners of its picture at `depth`, clockwise from the top left."""
    cameras = cameras.to("cpu", torch.float64)
    left, top, right, bottom = -0.5, -0.5, cameras.width - 0.5, cameras.height - 0.5
    pixels = torch.tensor([[left, top], [right, top], [right, bottom], [left, bottom]], dtype=torch.float64)
    focal, centre = cameras.intrinsics[:, None, :2], cameras.intrinsics[:, None, 2:]
    corners = torch.cat([(pixels - centre) / focal, torch.ones(len(focal), 4, 1, dtype=torch.float64)], -1) * depth
    points = torch.cat([torch.zeros(len(focal), 1, 3, dtype=torch.float64), corners], 1)
    return torch.nan_to_num(to_world(points, cameras.extrinsics), posinf=0, neginf=0).numpy()


def first_view(cameras: Cameras, depth: float, box: Box) -> dict[str, dict[str, float]]:
    """plotly's camera from behind and above the first camera, towards what it sees."""
    outward = inverse(cameras.extrinsics[:1].to("cpu", torch.float64))[0].numpy()
    right, down, forward, centre = (outward[:, column] for column in range(4))
    eye = centre - 0.75 * depth * forward - 0.35 * depth * down + 0.4 * depth * right
    return _view(box.placed(eye), box.placed(centre + 0.8 * depth * forward))


def _view(eye: np.ndarray, centre: np.ndarray) -> dict[str, dict[str, float]]:
    def vector(values: Sequence[float] | np.ndarray) -> dict[str, float]:
        return {axis: round(float(value), 5) for axis, value in zip("xyz", values, strict=True)}

    return {"eye": vector(eye), "center": vector(centre), "up": vector((0, 0, 1))}


def packed_points(places: np.ndarray, box: Box) -> str:
    """Base64 of int16 3 N: the box's coordinates, STEPS for half of EDGE."""
    steps = np.rint(box.placed(places) / (EDGE / 2) * STEPS).astype("<i2")
    return base64.b64encode(np.ascontiguousarray(steps.T).tobytes()).decode()


def packed_colours(colours: np.ndarray) -> str:
    """Base64 of uint8 N 3."""
    return base64.b64encode(np.ascontiguousarray(colours).tobytes()).decode()


def rounded(values: np.ndarray) -> list[Any]:
    """Nested lists with what a picture can show of each number."""
    result: list[Any] = np.round(values, 4).tolist()
    return result
