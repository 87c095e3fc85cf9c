"""Cutting clips: the frames, the region and the scale that the rules promise, all from the draw's seed."""

import random
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tinyworld.core.errors import DataError
from tinyworld.data import frame_cache
from tinyworld.data.augment import recolour
from tinyworld.data.clips import ClipDataset, Sample
from tinyworld.data.cut import crop_region, draw_window, largest_factor, looping_step, resize, window
from tinyworld.data.order import Draw
from tinyworld.data.replacing import MAX_REPLACEMENTS
from tinyworld.data.scan import ClipRef
from tinyworld.media.read import Region, read_frames

STEPS = st.lists(st.integers(1, 8), min_size=1, max_size=4, unique=True).map(sorted)


@given(frames=st.integers(1, 60), n_frames=st.integers(1, 30), steps=STEPS, seed=st.integers(0, 10**6))
def test_windows_lie_inside_and_are_straight_wherever_that_is_possible(
    frames: int, n_frames: int, steps: list[int], seed: int
) -> None:
    start, step = draw_window(frames, n_frames, steps, random.Random(seed))
    chosen = window(frames, n_frames, start, step)
    assert len(chosen) == n_frames
    assert all(0 <= index < frames for index in chosen)
    if (n_frames - 1) * steps[0] < frames:
        assert step in steps
        assert chosen == list(range(start, start + n_frames * step, step))[:n_frames]
    else:
        assert step == max(1, min(steps[0], frames - 1))
        if frames > 1:
            assert all(abs(b - a) == step for a, b in pairwise(chosen))  # it moves, without a hard cut


def test_a_smaller_step_is_taken_where_the_drawn_one_does_not_fit() -> None:
    steps = {draw_window(12, 4, [1, 2, 3, 5], random.Random(seed))[1] for seed in range(60)}
    assert steps == {1, 2, 3}
    assert {draw_window(8, 4, [2, 3], random.Random(seed)) for seed in range(60)} == {(0, 2), (1, 2)}


def test_every_fitting_start_and_step_is_drawn() -> None:
    drawn = {draw_window(12, 4, [1, 3], random.Random(seed)) for seed in range(400)}
    assert drawn == {(start, 1) for start in range(9)} | {(start, 3) for start in range(3)}


def test_looping_goes_forward_and_backward() -> None:
    assert window(4, 10, 0, 1) == [0, 1, 2, 3, 2, 1, 0, 1, 2, 3]
    assert window(4, 5, 2, 1) == [2, 3, 2, 1, 0]
    assert window(2, 5, 0, 1) == [0, 1, 0, 1, 0]
    assert window(1, 3, 0, 1) == [0, 0, 0]
    assert window(8, 6, 3, 3) == [3, 6, 3, 0, 3, 6]
    assert [looping_step(frames, [4, 8]) for frames in (1, 2, 4, 5, 9)] == [1, 1, 3, 4, 4]


def crop(frames: np.ndarray, height: int, width: int, factor: float, down: float, across: float) -> torch.Tensor:
    """A region of whole frames, resized: what a sample is made of."""
    clip = ClipRef("", Path(), len(frames), frames.shape[2], frames.shape[1], 24.0)
    top, left, tall, wide = crop_region(clip, height, width, factor, down, across)
    return resize(frames[:, top : top + tall, left : left + wide], height, width)


def gradient(height: int, width: int) -> np.ndarray:
    """uint8 1 H W 3: red is the row, green the column."""
    picture = np.zeros((1, height, width, 3), dtype=np.uint8)
    picture[..., 0] = np.arange(height)[:, None]
    picture[..., 1] = np.arange(width)[None, :]
    return picture


def test_a_native_crop_is_pixels_of_the_picture() -> None:
    picture = gradient(60, 80)
    for down, across, top, left in ((0, 0, 0, 0), (1, 1, 28, 32), (0.5, 0.5, 14, 16)):
        cut = crop(picture, 32, 48, 1.0, down, across)
        assert cut.shape == (1, 3, 32, 48)
        assert cut.dtype == torch.uint8
        np.testing.assert_array_equal(cut[0].permute(1, 2, 0), picture[0, top : top + 32, left : left + 48])


@given(
    size=st.tuples(st.integers(1, 300), st.integers(1, 300)),
    wanted=st.tuples(st.integers(1, 300), st.integers(1, 300)),
    share=st.floats(0, 1),
    place=st.tuples(st.floats(0, 1), st.floats(0, 1)),
)
def test_regions_lie_inside_with_the_aspect_of_the_crop(
    size: tuple[int, int], wanted: tuple[int, int], share: float, place: tuple[float, float]
) -> None:
    clip = ClipRef("", Path(), 1, size[1], size[0], 24.0)
    most = largest_factor(clip, *wanted)
    factor = min(1.0, most) + share * (most - min(1.0, most))
    top, left, tall, wide = crop_region(clip, *wanted, factor, *place)
    assert 0 <= top <= top + tall <= size[0]
    assert 0 <= left <= left + wide <= size[1]
    for side, asked in ((tall, wanted[0]), (wide, wanted[1])):
        assert side >= 1
        assert side == 1 or abs(side - factor * asked) <= 0.5 + 1e-6


@pytest.mark.parametrize("factor", [0.5, 0.8, 1.7, 2.0])
def test_resizing_keeps_the_geometry(factor: float) -> None:
    """A ramp stays a ramp: values at the middle and near the edges are where the region's geometry puts them."""
    cut = crop(gradient(120, 160), 60, 80, factor, 0.0, 0.0)[0].float()
    rows = (torch.arange(60) + 0.5) * factor - 0.5
    columns = (torch.arange(80) + 0.5) * factor - 0.5
    assert (cut[0, 4:-4, 40] - rows[4:-4]).abs().max() <= 1
    assert (cut[1, 30, 4:-4] - columns[4:-4]).abs().max() <= 1


def test_shrinking_does_not_alias() -> None:
    stripes = np.zeros((1, 128, 128, 3), dtype=np.uint8)
    stripes[:, :, ::2] = 255
    shrunk = crop(stripes, 32, 32, 4.0, 0, 0).float()[..., 4:-4]
    assert (shrunk - 127.5).abs().max() < 8


def test_scales(clip_refs: list[ClipRef], monkeypatch: pytest.MonkeyPatch) -> None:
    sides: dict[str, list[int]] = {"native": [], "cover": [], "random": []}

    def noting(path: Path, indices: list[int], region: Region) -> np.ndarray:
        assert region[2] == region[3]
        sides[scale].append(region[2])
        return read_frames(path, indices, region)

    monkeypatch.setattr(frame_cache, "read_frames", noting)
    for scale in sides:
        dataset = ClipDataset(clip_refs, [(32, 32, 4)], crop_scale=scale)
        for seed in range(12):
            assert dataset[Draw(2, 0, seed, 0)].frames.shape == (4, 3, 32, 32)
    assert set(sides["native"]) == {32}
    assert set(sides["cover"]) == {64}
    assert len(set(sides["random"])) >= 9
    assert 32 <= min(sides["random"]) < 42 < 54 < max(sides["random"]) <= 64


@pytest.mark.parametrize("scale", ["native", "cover", "random"])
def test_a_small_video_is_enlarged_to_cover(scale: str, clip_refs: list[ClipRef]) -> None:
    dataset = ClipDataset(clip_refs, [(128, 128, 4)], crop_scale=scale, flip=False)
    frames = dataset[Draw(3, 0, 1, 0)].frames.float()
    assert frames.shape == (4, 3, 128, 128)
    # 64 of the 96 columns, twice as large: green rises by 160 over 95 columns
    rise = frames[:, 1, 64, 120] - frames[:, 1, 64, 8]
    assert (rise - 160 / 95 * 112 / 2).abs().max() < 6


def test_everything_follows_from_the_seed(clip_refs: list[ClipRef]) -> None:
    dataset = ClipDataset(clip_refs, [(32, 48, 5)], frame_steps=[1, 2], crop_scale="random")
    again = ClipDataset(clip_refs, [(32, 48, 5)], frame_steps=[1, 2], crop_scale="random")
    before = torch.get_rng_state()
    first = dataset[Draw(4, 0, 99, 0)]
    random.seed(5)
    torch.manual_seed(5)
    np.random.seed(5)
    second = again[Draw(4, 0, 99, 7)]
    assert torch.equal(first.frames, second.frames)
    assert (first.id, first.start, first.step) == (second.id, second.start, second.step)
    others = [dataset[Draw(4, 0, seed, 0)] for seed in range(8)]
    assert len({(sample.start, sample.step, int(sample.frames.sum())) for sample in others}) == 8
    torch.set_rng_state(before)
    dataset[Draw(4, 0, 100, 0)]
    assert torch.equal(torch.get_rng_state(), before)


def test_a_sample_shows_the_frames_that_it_names(clip_refs: list[ClipRef]) -> None:
    dataset = ClipDataset(clip_refs, [(64, 96, 6)], frame_steps=[1, 3], flip=False)
    for seed in range(8):
        sample = dataset[Draw(3, 0, seed, 0)]
        expected = read_frames(clip_refs[3].path, range(sample.start, sample.start + 6 * sample.step, sample.step))
        np.testing.assert_array_equal(sample.frames.permute(0, 2, 3, 1), expected)


def test_half_of_the_clips_are_mirrored(clip_refs: list[ClipRef]) -> None:
    plain, flipping = (ClipDataset(clip_refs, [(64, 96, 2)], flip=flip) for flip in (False, True))
    mirrored = 0
    for seed in range(40):
        one, other = plain[Draw(1, 0, seed, 0)].frames, flipping[Draw(1, 0, seed, 0)].frames
        assert torch.equal(one, other) or torch.equal(one, other.flip(-1))
        mirrored += not torch.equal(one, other)
    assert 10 <= mirrored <= 30


def test_a_short_clip_is_looped(clip_refs: list[ClipRef]) -> None:
    dataset = ClipDataset(clip_refs, [(64, 96, 30)], flip=False)
    sample = dataset[Draw(0, 0, 3, 0)]
    assert sample.frames.shape == (30, 3, 64, 96)
    places = window(10, 30, sample.start, sample.step)
    np.testing.assert_array_equal(sample.frames.permute(0, 2, 3, 1), read_frames(clip_refs[0].path, places))


def test_buckets(make_ref: Callable[..., ClipRef]) -> None:
    buckets = [(64, 96, 8), (32, 32, 24), (128, 128, 4), (400, 400, 8)]
    cases = {
        make_ref("fills two", 30): (0, 1),
        make_ref("large", 30, 640, 480): (0, 1, 2, 3),
        make_ref("few frames", 9): (0,),
        make_ref("small", 30, 40, 40): (1,),
        make_ref("very short", 3): (2,),  # of those it would be looped or enlarged for, the one with the fewest frames
        make_ref("large but very short", 3, 640, 480): (2,),
        make_ref("very small", 30, 16, 16): (1,),
        make_ref("useless", 30, 8, 8): (),
    }
    dataset = ClipDataset(list(cases), buckets)
    assert dict(zip(cases, dataset.bucket_of, strict=True)) == cases
    assert dataset.empty_buckets == []
    assert ClipDataset([make_ref(frames=9)], buckets).empty_buckets == [(32, 32, 24), (128, 128, 4), (400, 400, 8)]


@pytest.fixture
def with_broken(clip_refs: list[ClipRef], tmp_path: Path) -> list[ClipRef]:
    """Good clips, and two that were readable when scanned."""
    (tmp_path / "broken.mp4").write_bytes(b"no longer a video")
    broken = replace(clip_refs[0], id="broken", path=tmp_path / "broken.mp4")
    return [*clip_refs, broken, replace(broken, id="gone", path=tmp_path / "gone.mp4")]


def test_an_unreadable_video_is_replaced_and_reported(with_broken: list[ClipRef]) -> None:
    dataset = ClipDataset(with_broken, [(32, 32, 4)])
    for seed in range(10):
        sample = dataset[Draw(6, 0, seed, 0)]
        assert sample.frames.shape == (4, 3, 32, 32)
        assert sample.id.startswith("clip_")
        paths = [path for path, _ in sample.faults]
        assert paths[0] == str(with_broken[6].path)
        assert "cannot be opened" in sample.faults[0][1]
        assert str(with_broken[6].path) not in sample.faults[0][1]
        assert set(paths) <= {str(ref.path) for ref in with_broken[6:]}
        again = dataset[Draw(6, 0, seed, 0)]
        assert torch.equal(sample.frames, again.frames)
        assert sample.id == again.id
    assert len({dataset[Draw(6, 0, seed, 0)].id for seed in range(20)}) > 2


def test_only_unreadable_videos_end_it(with_broken: list[ClipRef]) -> None:
    dataset = ClipDataset(with_broken[6:], [(32, 32, 4)])
    with pytest.raises(DataError, match=f"{MAX_REPLACEMENTS + 1} videos in a row could not be read") as caught:
        dataset[Draw(0, 0, 0, 0)]
    assert "gone.mp4: no such file" in str(caught.value)


def test_faults_count_against_the_budget(clip_refs: list[ClipRef]) -> None:
    dataset = ClipDataset(clip_refs, [(32, 32, 4)])
    dataset.check_faults({"a": "x"}, 0.05)
    with pytest.raises(DataError, match=r"2 of 6 videos are unreadable, 1 may be \(data\.quarantine_budget=0\.05\)"):
        dataset.check_faults({"a": "x", "b": "y"}, 0.05)
    with pytest.raises(DataError):
        dataset.check_faults({"a": "x"}, 0.0)


@pytest.mark.parametrize(("scale", "factor"), [("native", 1.0), ("random", 1.0), ("cover", 2.0)])
def test_held_out_windows_are_the_middle(scale: str, factor: float, clip_refs: list[ClipRef]) -> None:
    dataset = ClipDataset(clip_refs, [(32, 32, 4)], frame_steps=[2, 4], crop_scale=scale)
    made = dataset.held_out_clip(clip_refs[2], 32, 32, 5)
    frames = read_frames(clip_refs[2].path, range(10, 19, 2))  # 30 frames: 10 before, 9 inside, 11 after
    assert torch.equal(made, crop(frames, 32, 32, factor, 0.5, 0.5))
    assert torch.equal(made, dataset.held_out_clip(clip_refs[2], 32, 32, 5))


def test_held_out_windows_of_short_clips_are_looped_from_the_start(clip_refs: list[ClipRef]) -> None:
    dataset = ClipDataset(clip_refs, [(64, 96, 4)], frame_steps=[1])
    made = dataset.held_out_clip(clip_refs[0], 64, 96, 25)
    np.testing.assert_array_equal(made.permute(0, 2, 3, 1), read_frames(clip_refs[0].path, window(10, 25, 0, 1)))


def test_a_sample_of_a_picture_size_that_changes_is_a_fault(shared: Path, clip_refs: list[ClipRef]) -> None:
    path = shared / "data/broken/clips/variable_resolution.ts"
    dataset = ClipDataset([ClipRef("v", path, 49, 384, 256, 30.0), *clip_refs], [(32, 32, 12)])
    samples: list[Sample] = [dataset[Draw(0, 0, seed, 0)] for seed in range(12)]
    faulty = [sample for sample in samples if sample.faults]
    assert faulty
    assert all("picture size changes from 384x256 to" in sample.faults[0][1] for sample in faulty)
    assert all(sample.start <= 5 for sample in samples if not sample.faults)  # before the first change


def test_new_features_leave_the_windows_as_they_are(clip_refs: list[ClipRef]) -> None:
    plain, changing = (
        ClipDataset(clip_refs, [(32, 32, 8)], [1, 2], "random", lookahead=[3], **more)
        for more in ({}, {"colour_jitter": 0.2, "clip_ends": 0.5})
    )
    for seed in range(10):
        one, other = (dataset.plan(Draw(4, 0, seed, 0)) for dataset in (plain, changing))
        assert (one.colour is None) and (other.colour is not None)
        assert (one.start, one.step, one.region, one.mirror) == (other.start, other.step, other.region, other.mirror)
        assert one.numbers[:5] == other.numbers[:5]
        assert torch.equal(plain[Draw(4, 0, seed, 0)].frames, plain.read(one))
        before = changing.read(replace(other, colour=None))
        assert torch.equal(changing[Draw(4, 0, seed, 0)].frames, recolour(before, other.colour))


def test_the_clips_of_a_seed_never_change(clip_refs: list[ClipRef]) -> None:
    """Runs are resumed with later versions: what a seed shows is a promise."""
    dataset = ClipDataset(clip_refs, [(32, 48, 5)], frame_steps=[1, 2], crop_scale="random")
    cuts = [dataset.plan(Draw(4, 0, seed, 0)) for seed in range(3)]
    assert [(cut.start, cut.step, cut.region, cut.mirror) for cut in cuts] == PROMISED_CUTS


PROMISED_CUTS = [(26, 2, (30, 22, 33, 50), False), (36, 1, (4, 2, 59, 89), True), (5, 1, (24, 32, 35, 52), False)]


@pytest.mark.parametrize(("ends", "share"), [(0.0, (0, 0)), (0.3, (6, 24)), (1.0, (50, 50))])
def test_clip_ends_repeat_the_last_decoded_frame(ends: float, share: tuple[int, int], clip_refs: list[ClipRef]) -> None:
    dataset = ClipDataset(clip_refs, [(32, 32, 8), (32, 32, 6)], clip_ends=ends, lookahead=[3, 0], flip=False)
    repeated = 0
    for seed in range(50):
        cut = dataset.plan(Draw(3, 0, seed, 0))
        straight = tuple(range(cut.start, cut.start + 8))
        assert cut.numbers in (straight, (*straight[:5], *straight[4:5] * 3))
        repeated += cut.numbers != straight
        assert len(set(dataset.plan(Draw(3, 1, seed, 0)).numbers)) == 6  # nothing comes after the last decoded frame
    assert share[0] <= repeated <= share[1]
    if ends == 1:
        frames = dataset[Draw(3, 0, 0, 0)].frames
        assert all(torch.equal(frames[4], frames[t]) for t in (5, 6, 7)) and not torch.equal(frames[3], frames[4])


def test_the_view_of_the_reference_vae(clip_refs: list[ClipRef]) -> None:
    dataset = ClipDataset(clip_refs, [(32, 32, 8), (32, 32, 6)], teacher_frames=[5, 9])
    draws = [Draw(3, bucket, 1, 0) for bucket in (0, 1)]
    short, padded = (dataset.teacher_view(draw) for draw in draws)
    frames = [dataset[draw].frames for draw in draws]
    assert torch.equal(dataset.read(short), frames[0][:5])
    assert torch.equal(dataset.read(padded), torch.cat([frames[1], frames[1][-1:].expand(3, -1, -1, -1)]))
