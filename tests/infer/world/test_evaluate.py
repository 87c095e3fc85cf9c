"""Scenes beside labels, scenes alone, cameras followed: exact scenes, faults of known size, and where nothing is valid."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.infer.world.planes import plane_scene
from tests.infer.world.small import FRAMES, HEIGHT, WIDTH, make_base, make_branch, make_codec
from tinyworld.core.geometry import Cameras
from tinyworld.infer.world import evaluate, without_truth
from tinyworld.infer.world.camera_paths import cameras_for
from tinyworld.infer.world.evaluate import (
    FORWARD,
    MEAN_MAP,
    MEDIAN,
    WITHOUT,
    Labelled,
    compared,
    followed,
    judged,
    starts,
)
from tinyworld.infer.world.following import following
from tinyworld.infer.world.pipeline import FantasyWorldPipeline
from tinyworld.infer.world.results import camera_facts
from tinyworld.infer.world.scene import Scene
from tinyworld.infer.world.tally import Outcome, as_json, tally, unit_of
from tinyworld.infer.world.without_truth import FLAT, STILL, as_asked, judged_alone
from tinyworld.metrics.trajectory import camera_metrics

FOOTAGE = np.random.default_rng(4).integers(0, 256, (FRAMES, HEIGHT, WIDTH, 3), dtype=np.uint8)


def labels(scene: Scene, mask: torch.Tensor | None = None, usable: bool = True) -> Labelled:
    depth = torch.from_numpy(scene.depth)
    assert scene.points is not None
    known = torch.ones_like(depth, dtype=torch.bool) if mask is None else mask
    return Labelled("a", 2, 5, scene.frames, depth, known, torch.from_numpy(scene.points), scene.cameras, usable)


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> FantasyWorldPipeline:
    folder = tmp_path_factory.mktemp("world")
    base, codec = make_base(folder / "base"), make_codec(folder / "codec")
    weights = make_branch(folder / "stage2.safetensors", base, "stage2", torch.float32, codec)
    return FantasyWorldPipeline.from_pretrained(base, weights, codec, torch_dtype=torch.float32)


# Beside labels


def test_the_truth_has_no_error() -> None:
    scene = plane_scene(5, path="orbit:20deg")
    found = compared(scene, labels(scene))
    assert (found.id, found.part) == ("a", 2) and set(found.values) == set(evaluate.NAMES)
    for name in evaluate.NAMES:
        best = 1.0 if name in ("delta1", "delta1_scaled", "auc30") else 0.0
        assert found.values[name] == pytest.approx(best, abs=2e-5), name
    assert found.baselines[MEDIAN]["abs_rel"] > 0.01 and found.baselines[MEDIAN]["point_error"] > 0.01
    assert found.baselines[STILL]["auc30"] < 0.1 and found.baselines[STILL]["ate"] > 0.01


def test_the_mean_training_depth_map_stands_beside_where_it_is_known() -> None:
    scene = plane_scene(5)
    truth = labels(scene)
    assert MEAN_MAP not in compared(scene, truth).baselines
    found = compared(scene, replace(truth, usual_depth=2 * truth.depth[2].double())).baselines[MEAN_MAP]
    expected = ((2 * truth.depth[2] - truth.depth).abs() / truth.depth).mean()
    assert found["abs_rel"] == pytest.approx(float(expected), rel=1e-5) and "ate" not in found


def test_faults_of_known_size() -> None:
    scene = plane_scene(5)
    longer = replace(scene, depth=(1.5 * scene.depth).astype(np.float32), points=None)
    found = compared(longer, labels(scene)).values
    assert found["abs_rel"] == pytest.approx(0.5, rel=1e-5) and found["delta1"] == 0
    assert found["abs_rel_scaled"] == pytest.approx(0, abs=1e-6) and "point_error" not in found
    backward = cameras_for("orbit:-20deg", 5, scene.height, scene.width)
    wrong = compared(replace(scene, cameras=backward), labels(scene)).values
    assert wrong["auc30"] < 0.5 and wrong["rpe_rotation"] > 3 and wrong["consistency"] > 0.05
    expected = camera_metrics(batch(backward), batch(scene.cameras))
    assert wrong["ate"] == pytest.approx(float(expected["ate"][0]))


def test_an_even_straight_track_is_met_by_any_straight_line() -> None:
    """What makes the third baseline needed: its ATE is 0 wherever the camera goes evenly straight on."""
    scene = plane_scene(5, path="truck:0.3")
    extrinsics = scene.cameras.extrinsics.clone()
    extrinsics[:, 0, 3] = -torch.linspace(0, 0.3, 5, dtype=torch.float64)
    even = replace(scene, cameras=replace(scene.cameras, extrinsics=extrinsics))
    baselines = compared(even, labels(even)).baselines
    assert baselines[FORWARD]["ate"] == pytest.approx(0, abs=1e-9) and baselines[FORWARD]["auc30"] == 0
    assert baselines[STILL]["ate"] > 0.05


def test_windows_without_labels_have_no_numbers() -> None:
    scene = plane_scene(3)
    nothing = torch.zeros(scene.depth.shape, dtype=torch.bool)
    found = compared(scene, labels(scene, nothing, usable=False))
    assert math.isfinite(found.values["rpe_rotation"])  # turns need no scale
    others = [value for name, value in found.values.items() if name != "rpe_rotation"]
    assert all(map(math.isnan, others)) and all(map(math.isnan, found.baselines[MEDIAN].values()))
    lines = tally([found], evaluate.NAMES)
    assert {line.name for line in lines} == {"rpe_rotation"}
    single = compared(plane_scene(1), labels(plane_scene(1)))
    assert math.isnan(single.values["ate"]) and single.values["abs_rel"] == 0


def test_judged_is_a_blind_lift(pipeline: FantasyWorldPipeline) -> None:
    scene = replace(plane_scene(FRAMES, HEIGHT, WIDTH), frames=FOOTAGE)
    truth = labels(scene)
    found = judged(pipeline, truth, 0.5)
    assert found == compared(pipeline.lift(FOOTAGE, 0.5, generator=5), truth)
    assert all(map(math.isfinite, found.values.values()))
    assert found.values != judged(pipeline, replace(truth, seed=6), 0.5).values


def test_where_windows_start() -> None:
    assert starts(41, 13, 2, 1) == [8]
    assert starts(41, 13, 2, 3) == [2, 8, 13]
    assert starts(13, 13, 1, 4) == [0]
    assert starts(14, 13, 1, 4) == [0]
    for frames, windows in ((12, 1), (13, 0)):
        with pytest.raises(ValueError, match="do not fit"):
            starts(frames, 13, 1, windows)


# Without labels


def test_an_exact_scene_alone() -> None:
    scene = plane_scene(5, 36, 48)
    found = judged_alone(scene, "x")
    assert set(found.values) == set(without_truth.NAMES[:7])
    assert found.values["depth_agreement"] < 1e-5 and found.values["consistency"] < 1e-5
    assert found.baselines[STILL]["depth_agreement"] > 0.01
    noise = [found.values["colour_agreement"], found.baselines[STILL]["colour_agreement"]]
    assert all(value > 0.1 for value in noise) and FLAT in found.baselines  # the plane is painted with noise
    turned = replace(scene, cameras=cameras_for("orbit:-20deg", 5, 36, 48))
    worse = judged_alone(turned, "x").values
    assert worse["depth_agreement"] > 100 * found.values["depth_agreement"] and worse["consistency"] > 0.05


def test_a_scene_in_which_nothing_is_known() -> None:
    scene = plane_scene(5)
    nothing = np.zeros_like(scene.depth)
    empty = replace(scene, depth=nothing, points=None, point_confidence=None)
    found = judged_alone(empty, "x").values
    finite = {name for name, value in found.items() if math.isfinite(value)}
    assert finite == {"colour_flicker", "unsteadiness"}
    assert math.isnan(judged_alone(replace(scene, depth=nothing), "x").values["consistency"])
    assert not tally([judged_alone(plane_scene(1), "x")], ["depth_agreement", "colour_flicker", "ate"])


def test_a_scene_that_was_asked_for_with_cameras(pipeline: FantasyWorldPipeline) -> None:
    asked = cameras_for("truck", FRAMES, HEIGHT, WIDTH)
    scene = plane_scene(FRAMES, HEIGHT, WIDTH)
    scene = replace(scene, facts={"camera": camera_facts(asked, "truck")})
    assert "ate" not in judged_alone(scene, "x").values  # nothing is known of it without a model
    expected = following(pipeline, scene, asked)
    found = judged_alone(scene, "x", "scene", pipeline)
    assert {name: found.values[name] for name in expected} == expected
    assert found.baselines[STILL]["ate"] > 0.01
    told = replace(scene, facts={**scene.facts, "follows": expected})
    assert judged_alone(told, "x", "scene") == found


# Cameras followed


def test_frames_that_move_as_asked() -> None:
    """Of the plane nearly nothing is left under its own cameras; nothing is explained by others, nor in a video that stands."""
    scene = plane_scene(5, 36, 48, path="truck:0.2")
    assert scene.points is not None
    waves = np.stack([np.sin(3 * scene.points[..., 0]), np.cos(4 * scene.points[..., 1])], -1)
    frames = (127 + 100 * waves[..., [0, 1, 0]]).round().astype(np.uint8)
    moving = replace(scene, frames=frames)
    assert as_asked(moving, scene.cameras) < 0.1
    assert as_asked(moving, cameras_for("truck:-0.2", 5, 36, 48)) > 1.5
    drift = np.arange(5, dtype=np.uint8)[:, None, None, None]
    assert as_asked(replace(scene, frames=frames[:1] + drift), scene.cameras) > 5
    assert math.isnan(as_asked(replace(scene, frames=np.repeat(frames[:1], 5, 0)), scene.cameras))


def test_followed_compares_two_worlds_of_one_seed(pipeline: FantasyWorldPipeline) -> None:
    request = {"num_inference_steps": 2, "image": FOOTAGE[0]}
    found = followed(pipeline, "truck:0.4", "truck", 3, request)
    asked = cameras_for("truck:0.4", FRAMES, HEIGHT, WIDTH)
    for values, camera in ((found.values, "truck:0.4"), (found.baselines[WITHOUT], None)):
        scene = pipeline(camera=camera, generator=3, **request)
        assert values == {**following(pipeline, scene, asked), "colour_as_asked": as_asked(scene, asked)}
    assert found.values != found.baselines[WITHOUT] and math.isfinite(found.baselines[STILL]["ate"])
    assert followed(pipeline, asked, "truck", 3, request) == found


# The table


def test_tally_by_hand() -> None:
    rows = [
        Outcome("a", 0, {"ate": 1.0, "auc30": 0.5}, {"still": {"ate": 2.0, "auc30": 0.5}, "flat": {"auc30": 0.1}}),
        Outcome("a", 1, {"ate": 3.0, "auc30": 0.7}, {"still": {"ate": 2.0, "auc30": 0.5}, "flat": {"auc30": 0.1}}),
        Outcome("b", 0, {"ate": 5.0, "auc30": math.nan}, {"still": {"ate": 6.0}, "flat": {}}),
        Outcome("c", 0, {"ate": 7.0}, {"still": {"ate": math.nan}}),
    ]
    ate, still, flat = tally(rows, ("ate", "auc30", "consistency"))
    assert (ate.name, ate.clips, ate.mean, ate.beside) == ("ate", 3, pytest.approx(14 / 3), "still")
    assert ate.low < ate.mean < ate.high
    assert (ate.baseline, ate.wins, ate.of) == (4.0, 1, 2)  # a is as good as the baseline: no win
    assert (still.beside, still.clips, still.mean, still.wins, still.of) == ("still", 1, 0.6, 1, 1)
    assert math.isnan(still.low) and (flat.beside, flat.baseline) == ("flat", pytest.approx(0.1))
    assert unit_of(rows) == "clips"
    alone = tally(rows[:2], ("ate",))[0]
    assert unit_of(rows[:2]) == "parts of one clip" and (alone.clips, alone.mean, alone.wins) == (2, 2.0, 1)
    (bare,) = tally([Outcome("a", 0, {"ate": 1.0})], ("ate",))
    assert (bare.beside, bare.wins, bare.of) == (None, 0, 0) and math.isnan(bare.baseline)
    told = as_json(rows, ("ate",))
    assert told["lines"][0]["wins"] == 1 and told["clips"][1]["part"] == 1 and tally([], ("ate",)) == []


def batch(cameras: Cameras) -> Cameras:
    return replace(cameras, extrinsics=cameras.extrinsics[None], intrinsics=cameras.intrinsics[None])
