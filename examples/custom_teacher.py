"""A tiny autoencoder for the latents of a video VAE that tinyworld does not know.

    python examples/custom_teacher.py                      # rendered rooms, about two minutes on a CPU
    python examples/custom_teacher.py --data my_clips --steps 4000

tinyworld opens the video VAEs of diffusers by itself (teacher.ref_vae_path). For any other one write a subclass of
`ReferenceVae`: what its latents are, how clips become latents, and how latents become pictures. Everything else stays as
it is: recipe, training, resuming, report.

The VAE here is made up, so that nothing has to be downloaded: the lowest frequencies of blocks of 2 x 8 x 8 pixels, as in
a JPEG that also reaches through time. No public variant has its latents (20 channels, 2 frames each); the recipe says so.
"""

import argparse
import hashlib
import logging
import math
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import conv3d, conv_transpose3d

from tinyworld import Taehv
from tinyworld.config.load import load_recipe
from tinyworld.config.schema import TaehvRecipe
from tinyworld.core.console import ConsoleHandler
from tinyworld.core.errors import UserError
from tinyworld.engine.loop import run_training
from tinyworld.metrics.baseline import mean_colour
from tinyworld.metrics.image import psnr
from tinyworld.models.teachers import Posterior, ReferenceVae, TeacherFacts
from tinyworld.report import build_report
from tinyworld.tasks.taehv import TaehvTask

TIME, SPACE = 2, 8
KEPT = (12, 4, 4)
"""Frequencies kept of brightness and of two differences of colours: 20 numbers for 2 x 8 x 8 x 3."""
COLOURS = ((1, 1, 1), (1, 0, -1), (1, -2, 1))


class BlockVae(ReferenceVae):
    """Put your model here: load its weights in __init__, call it in encode and decode."""

    basis: Tensor
    gain: Tensor

    def __init__(self) -> None:
        basis, gain = lowest_frequencies()
        # kind: a name of your own. "raw": latents are used as the model makes them. The path only goes into messages.
        facts = TeacherFacts("blocks", "BlockVae", sum(KEPT), TIME, SPACE, "raw", Path(__file__))
        # With weights in a file: digest=tinyworld.core.files.sha256(file). Other latents must have another digest.
        super().__init__(facts, digest=hashlib.sha256(basis.numpy().tobytes()).hexdigest())
        self.register_buffer("basis", basis, persistent=False)
        self.register_buffer("gain", gain[:, None, None, None], persistent=False)

    def encode(self, frames: Tensor) -> Posterior:
        """N T 3 H W in [0, 1], T = 2k + 1, to k + 1 latents: the first frame has one of its own, here by repeating it."""
        self.facts.latent_count(frames.shape[1])  # raises with the nearest counts that fit
        self.facts.check_size(*frames.shape[3:])
        led = torch.cat([frames[:, :1].expand(-1, TIME - 1, -1, -1, -1), frames], 1) - 0.5
        latents = conv3d(led.transpose(1, 2), self.basis, stride=(TIME, SPACE, SPACE)) * self.gain
        mean = latents.transpose(1, 2)
        return Posterior(mean, torch.full_like(mean, -30.0))  # a VAE would state its log variance; this one is certain

    def decode(self, latents: Tensor) -> Tensor:
        """k + 1 latents, N L c h w, to 2k + 1 frames."""
        blocks = latents.transpose(1, 2) / self.gain
        frames = conv_transpose3d(blocks, self.basis, stride=(TIME, SPACE, SPACE)).transpose(1, 2)
        return frames[:, TIME - 1 :] + 0.5


def lowest_frequencies() -> tuple[Tensor, Tensor]:
    """Orthonormal patterns, 20 3 2 8 8, and what brings their sizes in natural pictures near 1."""
    places = [(t, y, x) for t in range(TIME) for y in range(SPACE) for x in range(SPACE)]
    places.sort(key=lambda place: (4 * place[0] + place[1] + place[2], place))
    time, space = cosines(TIME), cosines(SPACE)
    patterns, gains = [], []
    for colour, kept in zip(torch.tensor(COLOURS, dtype=torch.float32), KEPT, strict=True):
        for t, y, x in places[:kept]:
            patterns.append(torch.einsum("c,t,y,x->ctyx", colour / colour.norm(), time[t], space[y], space[x]))
            gains.append(0.5 * (1.0 + 2 * t + y + x))
    return torch.stack(patterns), torch.tensor(gains)


def cosines(size: int) -> Tensor:
    """The discrete cosine transform of type II, orthonormal: size (frequencies) x size (places)."""
    k, place = torch.arange(size)[:, None], torch.arange(size) + 0.5
    waves = torch.cos(math.pi / size * k * place) * math.sqrt(2 / size)
    waves[0] /= math.sqrt(2)
    return waves


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--data", default="rooms", help="folder of videos, or rooms")
    parser.add_argument("--output", default="output")
    options = parser.parse_args()
    logging.basicConfig(format="%(message)s", handlers=[ConsoleHandler()])  # the training's own words, above its bars

    # Any recipe, any of its keys. Four of them say what the VAE is and how its latents look.
    settings = {
        "name": "custom_teacher", "output_dir": options.output, "data_root": options.data, "use_ref_vae": True,
        "ref_vae_path": __file__,                 # goes into the run's config.yaml: where the VAE comes from
        "latent_channels": sum(KEPT),
        "time_compression": TIME,
        "patch_size": SPACE // 8,                 # a latent cell covers 8 x patch_size pixels along each side
        "encoder_width": 16, "decoder_widths": [64, 32, 32, 16], "encoder_loss_weight": 1.0,
        "max_train_steps": options.steps, "validation_steps": max(options.steps // 3, 1), "checkpointing_steps": options.steps,
        "lr_warmup_steps": min(50, options.steps // 4), "tracker_name": "none",
    }  # fmt: skip
    recipe = load_recipe("taehv_demo", settings)
    assert isinstance(recipe, TaehvRecipe)
    teacher = BlockVae()
    task = TaehvTask(recipe, teacher)  # refuses a recipe whose student does not fit the VAE, and says which keys do
    outcome = run_training(task, recipe)
    print(f"report: {build_report(outcome.folder)}")

    # What it is for: the tiny decoder in place of the large one. No frame goes in here, only the VAE's latents.
    student = Taehv.from_pretrained(outcome.folder / "best_model")
    scores = []
    for window in task.held_out():
        frames = window.frames(torch.device("cpu"))
        frames = frames[:, : teacher.facts.decoded_count(frames.shape[1] // TIME)]  # a count that the VAE takes
        latents = teacher.to("cpu").encode(frames).mean
        with torch.no_grad():
            pictures = (student.decode(latents), teacher.decode(latents).clamp(0, 1), mean_colour(frames))
        scores.append([psnr(made, frames).item() for made in pictures])
    tiny, own, baseline = torch.tensor(scores).mean(0).tolist()
    print(
        f"held-out PSNR of the VAE's latents: decoded by the tiny decoder {tiny:.2f} dB, by the VAE itself {own:.2f} dB"
    )
    print(f"each clip's mean colour alone gives {baseline:.2f} dB")


if __name__ == "__main__":
    try:
        main()
    except UserError as error:  # what you can mend, in one paragraph
        raise SystemExit(f"error: {error}") from None
