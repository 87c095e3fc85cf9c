"""The scan: every file ends as usable, quarantined with a reason, or dropped by a stated rule with a reason."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tinyworld.core.errors import DataError
from tinyworld.data import scan as scan_module
from tinyworld.data.manifest import Entry, list_videos
from tinyworld.data.scan import ClipRef, Need, check_budget, scan
from tinyworld.media.write import write_video

ANYTHING = Need(1, 1, 1, quarantine_budget=1.0)


def test_usable_clips_keep_their_order_and_facts(video_folder: Path) -> None:
    entries = list(reversed(list_videos(video_folder)))
    report = scan(entries, Need(64, 96, 10))
    assert [clip.id for clip in report.clips] == [entry.id for entry in entries]
    assert report.clips[0] == ClipRef("clip_5", video_folder / "clip_5.mp4", 60, 96, 64, 24.0)
    assert (report.looped, report.quarantined, report.dropped) == ([], [], [])


def test_short_clips_are_looped_or_dropped_with_a_count(video_folder: Path) -> None:
    entries = list_videos(video_folder)
    looped = scan(entries, Need(64, 96, 25))
    assert [clip.id for clip in looped.looped] == ["clip_0", "clip_1"]
    assert len(looped.clips) == 6
    dropped = scan(entries, Need(64, 96, 25, short_clips="drop"))
    assert [clip.id for clip in dropped.clips] == ["clip_2", "clip_3", "clip_4", "clip_5"]
    assert [reason for _, reason in dropped.dropped] == [
        f"too short: {frames} frames of the 25 that a clip needs, and data.short_clips=drop leaves short videos out"
        for frames in (10, 20)
    ]


def test_the_smallest_step_decides_what_is_short(make_ref: Callable[..., ClipRef]) -> None:
    clip = make_ref(frames=23)
    assert Need(8, 8, 12, frame_steps=(3, 2)).is_short(clip) is False  # 11 x 2 + 1 frames are needed
    assert Need(8, 8, 12, frame_steps=(3,)).is_short(clip) is True
    assert Need(8, 8, 1, frame_steps=(9,)).is_short(make_ref(frames=1)) is False


@pytest.mark.parametrize(
    ("width", "height", "usable"), [(96, 96, True), (64, 48, True), (48, 48, True), (47, 400, False), (400, 47, False)]
)
def test_a_video_is_enlarged_at_most_twice(
    width: int, height: int, usable: bool, make_ref: Callable[..., ClipRef]
) -> None:
    refusal = Need(96, 96, 4).refusal(make_ref(width=width, height=height))
    assert (refusal is None) == usable
    if refusal:
        assert f"{width}x{height} pixels (w x h) are smaller than any training crop" in refusal


def test_an_annotation_that_promises_more_frames_than_there_are(video_folder: Path) -> None:
    entries = [Entry(str(n), video_folder / "clip_0.mp4", "", n) for n in (9, 10, 81)]
    report = scan(entries, ANYTHING)
    assert [clip.id for clip in report.clips] == ["9", "10"]
    assert report.quarantined == [
        (str(video_folder / "clip_0.mp4"), "the annotation file says 81 frames, the video has 10")
    ]


@pytest.mark.parametrize(
    ("unreadable", "files", "fraction", "fits"),
    [
        (1, 3, 0.05, True),  # one file always, unless the fraction is 0
        (2, 3, 0.05, False),
        (2, 40, 0.05, True),
        (3, 40, 0.05, False),
        (0, 9, 0.0, True),
        (1, 9, 0.0, False),
        (29, 100, 0.29, True),  # 0.29 x 100 is 28.999… in floating point
        (30, 100, 0.29, False),
        (5, 5, 1.0, True),
    ],
)
def test_the_budget(unreadable: int, files: int, fraction: float, fits: bool) -> None:
    faults = {f"/x/{n}.mp4": f"reason {n}" for n in range(unreadable)}
    if fits:
        check_budget(faults, files, fraction)
        return
    with pytest.raises(DataError, match=r"videos are unreadable, \d+ may be \(data\.quarantine_budget=") as caught:
        check_budget(faults, files, fraction)
    assert f"{unreadable} of {files}" in str(caught.value)
    assert "/x/0.mp4: reason 0" in str(caught.value)
    assert ("… and" in str(caught.value)) == (unreadable > 10)


def test_nothing_usable_is_a_clear_error(video_folder: Path) -> None:
    with pytest.raises(DataError, match=r"none of the 6 videos can be used for training:\n.*clip_0\.mp4: 96x64 pixels"):
        scan(list_videos(video_folder), Need(640, 960, 4))


def test_a_file_that_vanishes_is_quarantined(video_folder: Path, tmp_path: Path) -> None:
    entries = [*list_videos(video_folder), Entry("gone", tmp_path / "gone.mp4")]
    report = scan(entries, Need(64, 96, 4))
    assert report.quarantined == [(str(tmp_path / "gone.mp4"), "no such file")]


def test_progress_is_reported_for_each_file(video_folder: Path) -> None:
    seen: list[tuple[int, int]] = []
    scan(list_videos(video_folder), ANYTHING, on_progress=lambda done, total: seen.append((done, total)))
    assert seen == [(n, 6) for n in range(1, 7)]


def test_the_index_saves_probing_what_did_not_change(
    video_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for path in video_folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "broken.mp4").touch()
    probed: list[str] = []
    probe = scan_module.probe
    monkeypatch.setattr(scan_module, "probe", lambda path: (probed.append(path.name), probe(path))[1])
    index = tmp_path / "index.json"

    def names(deep: bool = False) -> list[str]:
        probed.clear()
        report = scan(list_videos(tmp_path), ANYTHING, deep=deep, index=index)
        assert len(report.clips) == 6
        assert len(report.quarantined) == 1
        return sorted(probed)

    everything = ["broken.mp4", *(f"clip_{n}.mp4" for n in range(6))]
    assert names() == everything
    assert names() == ["broken.mp4"]
    write_video(tmp_path / "clip_3.mp4", np.zeros((40, 32, 32, 3), dtype=np.uint8), 24)
    os.utime(tmp_path / "clip_4.mp4", ns=(1, 1))
    assert names() == ["broken.mp4", "clip_3.mp4", "clip_4.mp4"]
    assert names(deep=True) == everything  # a shallow result does not stand for a deep one
    assert names(deep=True) == ["broken.mp4"]
    assert names() == ["broken.mp4"]
    index.write_text("{")
    with pytest.raises(DataError, match="a damaged scan index; delete it"):
        names()


SHALLOW = {
    "truncated_no_moov": "moov atom not found",
    "truncated_faststart": "promises 49 frames, it holds 18",
    "zero_byte": "empty",
    "audio_only": "no video stream",
    "text": "cannot be opened",
    "corrupt_bits": "damaged video data",
}


@pytest.mark.shared
@pytest.mark.parametrize("deep", [False, True])
def test_every_broken_clip_has_its_place(deep: bool, shared: Path) -> None:
    report = scan(list_videos(shared / "data/broken/clips"), Need(128, 128, 12, quarantine_budget=1.0), deep=deep)
    reasons = {Path(path).stem: reason for path, reason in report.quarantined if not path.endswith(".ts")}
    expected = SHALLOW | ({"variable_resolution": "picture size changes from 384x256 to 256x160"} if deep else {})
    assert reasons.keys() == expected.keys()
    assert all(expected[name] in reasons[name] for name in expected)
    assert {Path(path).stem: reason[:30] for path, reason in report.dropped} == {
        "one_frame": "too short: 1 frame of the 12 t",
        "tiny_16x16": "16x16 pixels (w x h) are small",
    }
    assert [clip.id for clip in report.looped] == ["three_frames"]
    assert len(report.clips) == (1 if deep else 3)


@pytest.mark.shared
def test_broken_clips_are_over_budget(shared: Path) -> None:
    with pytest.raises(DataError, match=r"6 of 11 videos are unreadable, 1 may be") as caught:
        scan(list_videos(shared / "data/broken/clips"), Need(128, 128, 12))
    assert all(reason in str(caught.value) for reason in SHALLOW.values())
    assert "data.quarantine_budget" in str(caught.value)


@pytest.mark.shared
def test_a_wrong_frame_count_in_the_metadata_is_found(shared: Path) -> None:
    folder = shared / "data/broken/rgbd/meta_frame_count"
    report_need = Need(64, 64, 4, quarantine_budget=0.0)
    with pytest.raises(DataError, match="the annotation file says 81 frames, the video has 9"):
        scan(list_videos(folder, folder / "metadata.json"), report_need)


@pytest.mark.shared
def test_real_clips_are_all_usable(shared: Path) -> None:
    report = scan(list_videos(shared / "data/clips", shared / "data/clips/metadata.json"), Need(128, 128, 16))
    assert (len(report.clips), len(report.quarantined), len(report.dropped)) == (39, 0, 0)
