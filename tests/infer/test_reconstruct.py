"""Whole videos through a model, a few frames at a time."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.clips import make_clips, moving_pattern
from tinyworld import Taehv
from tinyworld.core.errors import DataError
from tinyworld.infer.compare import side_by_side
from tinyworld.infer.reconstruct import Reconstruction, means, reconstruct_video
from tinyworld.media.read import iter_frames, read_frames
from tinyworld.media.write import write_video
from tinyworld.metrics.baseline import mean_colour
from tinyworld.metrics.image import psnr


@pytest.mark.parametrize("variant", ["taew2_1", "taecvx", "taew2_2"])
@pytest.mark.parametrize("frames", [1, 4, 5, 9, 12])
def test_every_frame_comes_back_whatever_the_length(tmp_path: Path, variant: str, frames: int) -> None:
    torch.manual_seed(0)
    model = Taehv.from_variant(variant, encoder_width=8, decoder_widths=(16, 8, 8, 8)).eval()
    video = tmp_path / "in.mp4"
    write_video(video, moving_pattern(frames, 36, 50, 1), 12)
    found = reconstruct_video(model, video, tmp_path / "out.mp4", plain=True)
    written = np.stack(list(iter_frames(tmp_path / "out.mp4")))
    assert written.shape == (frames, 36, 50, 3) and found.frames == frames
    original = torch.from_numpy(read_frames(video, range(frames))).permute(0, 3, 1, 2).float().div(255)[None]
    made = model.reconstruct(original)
    assert found.psnr == pytest.approx(float(psnr(made, original)), abs=1e-3)
    assert found.baseline_psnr == pytest.approx(float(psnr(mean_colour(original), original)), abs=1e-3)


def test_a_video_that_breaks_off_leaves_no_output(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_clips(tmp_path, count=1)
    model = Taehv.from_variant("taew2_1", encoder_width=8, decoder_widths=(16, 8, 8, 8)).eval()

    def broken(path: Path):  # type: ignore[no-untyped-def]
        yield from list(iter_frames(path))[:6]
        raise DataError(f"{path}: damaged video data")

    monkeypatch.setattr("tinyworld.infer.reconstruct.iter_frames", broken)
    with pytest.raises(DataError, match="damaged"):
        reconstruct_video(model, tmp_path / "clip0.mp4", tmp_path / "out.mp4")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["clip0.mp4"]


def test_side_by_side_shows_the_difference_around_grey() -> None:
    original = np.full((4, 5, 3), 100, np.uint8)
    made = original + np.array([10, 0, 40], np.uint8)
    picture = side_by_side(original, made)
    assert picture.shape == (4, 15, 3) and picture.dtype == np.uint8
    assert picture[0, 0].tolist() == [100, 100, 100] and picture[0, 5].tolist() == [110, 100, 140]
    assert picture[0, 10].tolist() == [168, 128, 255]


@pytest.mark.parametrize("height, width", [(8, 8), (10, 40)])
def test_a_picture_below_the_window_of_ssim_has_none(tmp_path: Path, height: int, width: int) -> None:
    model = Taehv.from_variant("taew2_1", encoder_width=8, decoder_widths=(16, 8, 8, 8)).eval()
    write_video(tmp_path / "in.mp4", moving_pattern(5, height, width, 1), 12)
    found = reconstruct_video(model, tmp_path / "in.mp4", tmp_path / "out.mp4")
    assert math.isnan(found.ssim) and found.psnr > 0 and found.frames == 5


def test_means_leave_out_what_a_video_cannot_have_but_not_a_broken_model() -> None:
    one = Reconstruction(Path("a"), None, 5, 32, 32, 20.0, 0.5, 0.1, 10.0, 1.0)
    small, still = replace(one, psnr=30.0, ssim=math.nan), replace(one, flicker=math.nan)
    assert means([one, small, still]) == pytest.approx(
        {"psnr": 70 / 3, "ssim": 0.5, "flicker": 0.1, "baseline_psnr": 10.0}
    )
    assert math.isnan(means([one, replace(one, psnr=math.nan)])["psnr"])
    assert math.isnan(means([still])["flicker"]) and math.isnan(means([])["psnr"])
