"""Meters that see a clip in pieces give what the functions give on the whole clip."""

import math

import pytest
import torch

from tinyworld.metrics import flicker, mean_colour, psnr, ssim
from tinyworld.metrics.baseline import MeanColourMeter
from tinyworld.metrics.meter import ClipMeter


@pytest.mark.parametrize("piece", [1, 2, 3, 7])
def test_a_clip_in_pieces_is_the_whole_clip(piece: int) -> None:
    generator = torch.Generator().manual_seed(piece)
    target = (torch.rand(7, 3, 16, 16, generator=generator) * 0.02 + torch.rand(3, 16, 16, generator=generator)).clamp(
        0, 1
    )
    prediction = (target + 0.1 * torch.randn(7, 3, 16, 16, generator=generator)).clamp(0, 1)
    meter, flat = ClipMeter(), MeanColourMeter()
    for made, wanted in zip(prediction.split(piece), target.split(piece), strict=True):
        meter.add(made, wanted)
        flat.add(wanted)
    whole = prediction[None], target[None]
    expected = {"psnr": psnr(*whole).item(), "ssim": ssim(*whole).item(), "flicker": flicker(*whole).item()}
    assert meter.result() == pytest.approx(expected, abs=1e-6)
    assert flat.psnr() == pytest.approx(psnr(mean_colour(whole[1]), whole[1]).item(), abs=1e-4)


def test_one_frame_has_no_flicker() -> None:
    frame = torch.rand(1, 3, 16, 16)
    meter = ClipMeter()
    meter.add(frame, frame)
    assert math.isnan(meter.result()["flicker"])
    assert meter.result()["psnr"] == 100
