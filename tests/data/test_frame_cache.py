"""Keeping decoded videos changes nothing but the time."""

from pathlib import Path

import numpy as np
import pytest

from tests.clips import make_clips
from tinyworld.data import frame_cache
from tinyworld.data.clips import ClipDataset
from tinyworld.data.frame_cache import FrameCache
from tinyworld.data.manifest import list_videos
from tinyworld.data.order import Order
from tinyworld.data.scan import ClipRef, Need, scan
from tinyworld.media.read import read_frames

CLIP_BYTES = 13 * 48 * 64 * 3
REGION = (5, 9, 32, 40)


@pytest.fixture
def clips(tmp_path: Path) -> list[ClipRef]:
    make_clips(tmp_path, count=3)
    return scan(list_videos(tmp_path), Need(32, 32, 4)).clips


def test_frames_are_those_of_the_file_and_are_decoded_once(
    clips: list[ClipRef], monkeypatch: pytest.MonkeyPatch
) -> None:
    reads = []
    monkeypatch.setattr(frame_cache, "read_frames", lambda path, *rest: reads.append(path) or read_frames(path, *rest))
    cache = FrameCache(10 * CLIP_BYTES)
    for indices in ([3, 4, 5], [12, 0, 0]):
        for clip in clips:
            assert np.array_equal(cache.read(clip, indices, REGION), read_frames(clip.path, indices, REGION))
    assert len(reads) == 3 and cache.bytes == 3 * CLIP_BYTES


def test_the_budget_holds_and_what_came_first_stays(clips: list[ClipRef], monkeypatch: pytest.MonkeyPatch) -> None:
    reads = []
    monkeypatch.setattr(frame_cache, "read_frames", lambda path, *rest: reads.append(path) or read_frames(path, *rest))
    cache = FrameCache(2 * CLIP_BYTES)
    for number in (0, 1, 0, 2, 0, 1):
        cache.read(clips[number], [0], REGION)
        assert cache.bytes <= 2 * CLIP_BYTES
    assert [Path(path).stem for path in reads] == ["clip0", "clip1", "clip2"]


def test_no_budget_keeps_nothing(clips: list[ClipRef]) -> None:
    cache = FrameCache(0)
    assert (
        np.array_equal(cache.read(clips[0], [7], REGION), read_frames(clips[0].path, [7], REGION)) and cache.bytes == 0
    )


def test_samples_do_not_depend_on_the_cache(clips: list[ClipRef]) -> None:
    plain, cached = (ClipDataset(clips, [(32, 32, 4)], cache_bytes=size) for size in (0, 10 * CLIP_BYTES))
    order = Order(plain.bucket_of, 4, 0)
    for step in range(5):
        for draw in order.batch(step):
            one, other = plain[draw], cached[draw]
            assert one.id == other.id and bool((one.frames == other.frames).all())
