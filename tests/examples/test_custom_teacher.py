"""A reference VAE of one's own: its arithmetic, and a student that decodes its latents."""

import json
import re
import runpy
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from tests.examples.conftest import EXAMPLES, Run
from tinyworld import Taehv
from tinyworld.core.errors import FramePlanError
from tinyworld.metrics.baseline import mean_colour
from tinyworld.metrics.image import psnr

FILE = EXAMPLES / "custom_teacher.py"


@pytest.fixture(scope="module")
def example() -> dict[str, Any]:
    return runpy.run_path(str(FILE))


def test_the_example_vae_is_a_projection_with_the_frame_counts_that_it_states(example: dict[str, Any]) -> None:
    vae = example["BlockVae"]()
    smooth = torch.linspace(0, 1, 32).expand(1, 7, 3, 16, 32) * torch.tensor([1.0, 0.6, 0.3])[:, None, None]
    latents = vae.encode(smooth).mean
    assert latents.shape == (1, vae.facts.latent_count(7), 20, 2, 4) == (1, 4, 20, 2, 4)
    decoded = vae.decode(latents)
    assert decoded.shape == smooth.shape and psnr(decoded, smooth) > psnr(mean_colour(smooth), smooth) + 15
    torch.testing.assert_close(vae.encode(decoded).mean, latents, atol=2e-3, rtol=1e-3)
    again = vae.encode(vae.decode(torch.randn(1, 3, 20, 2, 2))).mean
    assert again.shape == (1, 3, 20, 2, 2)
    with pytest.raises(FramePlanError, match="7 or 9"):
        vae.encode(smooth[:, :1].expand(-1, 8, -1, -1, -1))


def test_a_short_training_end_to_end(run_example: Run, clips: Path, tmp_path: Path) -> None:
    said = run_example("custom_teacher.py", "--steps", "2", "--data", str(clips))
    tiny, own, baseline = map(float, re.findall(r"(-?\d+\.\d+) dB", said)[-3:])
    assert own > baseline and tiny > 0
    (run,) = (tmp_path / "output").glob("custom_teacher-*")
    lines = [json.loads(line) for line in (run / "journal.jsonl").read_text().splitlines()]
    start = next(line for line in lines if line["event"] == "start")
    assert start["teacher"] == "BlockVae" and start["mode"] == "distil"
    spec = Taehv.from_pretrained(run / "best_model").spec
    assert (spec.latent_channels, spec.t_down, spec.t_up, spec.spatial_compression) == (20, 2, 2, 8)
    model = yaml.safe_load((run / "config.yaml").read_text())["model"]
    assert (model["latent_channels"], model["time_compression"], model["patch_size"]) == (20, 2, 1)
    assert (run / "report.html").is_file()


def test_the_decoder_learns_the_vaes_latents(example: dict[str, Any]) -> None:
    """The step that the task takes, on one clip: what is decoded of the VAE's latents comes closer to the frames."""
    torch.manual_seed(0)
    vae = example["BlockVae"]()
    y, x = torch.meshgrid(torch.linspace(0, 3, 32), torch.linspace(0, 3, 32), indexing="ij")
    frames = torch.stack([torch.sin(y + 0.3 * t) * torch.cos(x) for t in range(7)]) * 0.4 + 0.5
    frames = frames[None, :, None].expand(-1, -1, 3, -1, -1)
    latents = vae.encode(frames).mean
    student = Taehv.from_variant(
        "taew2_1", latent_channels=20, encoder_time_downscale=[True, False, False],
        decoder_time_upscale=[False, False, True], encoder_width=8, decoder_widths=[32, 16, 16, 8],
    )  # fmt: skip
    optimizer = torch.optim.Adam(student.parameters(), 3e-3)
    for _ in range(40):
        loss = (student.decode(latents, clamp=False) - frames).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert psnr(student.decode(latents).detach(), frames) > psnr(mean_colour(frames), frames) + 2
