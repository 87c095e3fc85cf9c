"""Choosing the camera's way: tries several, keeps clear of everything, prefers views that show much."""

import numpy as np

from tinyworld.data.rooms.camera import CameraPath, PathKind
from tinyworld.data.rooms.motion import Vector
from tinyworld.data.rooms.noise import Array
from tinyworld.data.rooms.shapes import Placed, Thing, clearance, dot, place
from tinyworld.data.rooms.trace import SIDES, cast

KINDS: tuple[PathKind, ...] = ("orbit", "dolly", "truck", "pan", "crane", "walk", "handheld")
CLEAR = 0.35
"""The camera keeps this far (m) from everything, at every moment of its way."""
TRIES, AUDITIONS = 60, 6
VISIBLE = 0.008
"""A thing counts as seen from this share of the picture on."""


def choose_camera(
    rng: np.random.Generator, things: tuple[Thing, ...], size: tuple[float, float, float]
) -> tuple[CameraPath, list[int]]:
    """The best of some clear paths, and the numbers of the things it sees, the largest first.

    When no path keeps `CLEAR` of everything, the one that comes closest to it is taken.
    """
    kind = KINDS[int(rng.integers(len(KINDS)))]
    first = place(things, 0.0)
    moments = [place(things, float(t), first) for t in np.linspace(0.0, 7.3, 8)]
    moving = [k for k, one in enumerate(moments[0]) if things[one.thing].motion is not None]
    obstacles = moments[0] + [moment[k] for moment in moments[1:] for k in moving]
    spheres = np.stack([[*one.centre, one.radius] for one in obstacles], axis=1).astype(np.float32)
    goals = [t.position for t in things if t.motion is not None] + [
        t.position for t in things if t.name.endswith(("table", "chair"))
    ]
    found: list[tuple[float, CameraPath]] = []
    widest: tuple[float, CameraPath] | None = None
    for _ in range(TRIES):
        path = _propose(rng, kind, goals, size)
        free = _free(path, obstacles, spheres)
        if widest is None or free > widest[0]:
            widest = (free, path)
        if free >= CLEAR:
            found.append((_score(path, moments[0], things), path))
        if len(found) == AUDITIONS:
            break
    assert widest is not None
    best = max(found, key=lambda pair: pair[0])[1] if found else widest[1]
    return best, _seen(best, moments[0])


def _propose(
    rng: np.random.Generator, kind: PathKind, goals: list[Vector], size: tuple[float, float, float]
) -> CameraPath:
    goal = goals[int(rng.integers(len(goals)))] if goals and rng.random() < 0.8 else (0.0, 0.0, 0.0)
    target = np.array([goal[0] * 0.8, goal[1] * 0.8, rng.uniform(0.45, 1.0)])
    turn, away = rng.uniform(0, 2 * np.pi), rng.uniform(1.5, 4.5)
    eye = target + away * np.array([np.cos(turn), np.sin(turn), 0.0])
    room = np.array([size[0] / 2 - 0.5, size[1] / 2 - 0.5])
    eye[:2] = np.clip(eye[:2], -room, room)
    eye[2] = rng.uniform(0.9, 1.75)
    reach = {
        "orbit": rng.uniform(0.30, 0.65), "dolly": rng.uniform(0.35, 0.8), "truck": rng.uniform(0.4, 0.9),
        "pan": rng.uniform(0.25, 0.55), "crane": rng.uniform(0.5, 0.9), "walk": rng.uniform(0.4, 0.9),
        "handheld": rng.uniform(0.25, 0.5),
    }[kind] * (1 if rng.random() < 0.5 else -1)  # fmt: skip
    shake = {"handheld": rng.uniform(1.2, 2.2), "walk": rng.uniform(0.6, 1.2)}.get(kind, rng.uniform(0.0, 0.4))
    return CameraPath(
        kind=kind,
        eye=(float(eye[0]), float(eye[1]), float(eye[2])),
        target=(float(target[0]), float(target[1]), float(target[2])),
        reach=float(reach),
        period=float(rng.uniform(5.5, 9.0)),
        phase=float(rng.uniform(-1.3, 0.1)),
        fov=float(np.deg2rad(rng.uniform(52.0, 78.0))),
        shake=float(shake),
        waves=tuple(float(w) for w in rng.uniform(0, 2 * np.pi, 12)),
    )


def _free(path: CameraPath, obstacles: list[Placed], spheres: Array) -> float:
    """The smallest distance (m) from any point of the way to any obstacle; `spheres` (4, S) bound the obstacles."""
    times = np.linspace(0.0, 2.0 * path.period, 24)
    eyes = np.stack([path.pose(float(t))[1] for t in times], axis=1).astype(np.float32)
    offset = eyes[:, None, :] - spheres[:3, :, None]
    bound = (np.sqrt(dot(offset, offset)) - spheres[3, :, None]).min(axis=1)
    # The room comes first; a sphere around it says nothing.
    free = float(clearance(obstacles[0], eyes).min())
    for k in np.argsort(bound, kind="stable"):
        if bound[k] > min(free, CLEAR):
            break
        free = min(free, float(clearance(obstacles[k], eyes).min()))
    return free


def _seen(path: CameraPath, placed: list[Placed]) -> list[int]:
    _, _, identity = cast(placed, path.view(1.0, 32, 32), ((0.0, 0.0),))
    owner = np.asarray([one.thing for one in placed])[identity // SIDES]
    numbers, counts = np.unique(owner, return_counts=True)
    order = np.argsort(-counts, kind="stable")
    return [int(numbers[k]) for k in order if counts[k] >= VISIBLE * owner.size]


def _score(path: CameraPath, placed: list[Placed], things: tuple[Thing, ...]) -> float:
    """Higher for more things, moving ones above all, and for depth; lower when something close fills the picture."""
    _, depth, _ = cast(placed, path.view(0.0, 24, 24), ((0.0, 0.0),))
    seen = _seen(path, placed)
    moving = sum(things[k].motion is not None for k in seen)
    return len(seen) + 2.0 * moving + 1.5 * float(depth.std()) - 12.0 * float((depth < 0.9).mean())
