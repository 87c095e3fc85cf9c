"""Denoising with guidance: ours, which makes once what no step changes and runs the heads at the last step alone, against a plain
loop that asks the networks for everything at every step, with the prompt and without.

    python benchmarks/fantasy_sample.py [--part 4 --height 160 --width 272 --num_frames 21 --steps 2 --repeats 2]

A part of the published width, the published 30 blocks split after 12, 512 text tokens, 257 image tokens, a camera, stage 2 with
its two-way attention, fp32 on one core, random weights. The plain loop calls the whole model twice a step; between both stands
one that runs the heads once and leaves the geometry out without the prompt, but makes cross-attention's keys and camera features
anew. Seconds are CPU seconds of a loop, in turns, fastest and slowest; the latents of all three are compared.
"""

import argparse
import time
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from fantasy_full_size import randomise
from fantasy_stage1 import scaled
from tinyworld.core.rng import normal
from tinyworld.core.world_sizes import SPACE_STEP, TIME_STEP, WorldSpec
from tinyworld.infer.world.denoise import Given, Networks, sample
from tinyworld.infer.world.schedule import flow_scheduler
from tinyworld.models.fantasy.backbone import WanBackbone, WanConditions
from tinyworld.models.fantasy.branch import GeometryBranch

GUIDANCE = 5.0


class Anew(Networks):
    """Every pass makes keys and camera features itself."""

    def remembered(self, given: Given, beside: Given | None = None) -> Given:
        return given


class Plain(Anew):
    """Every pass runs the whole model."""

    def velocity(self, noisy: Tensor, timestep: Tensor, given: Given) -> Tensor:
        found, _ = self.joint(noisy, timestep, given)
        assert found is not None
        return found


def conditions_of(spec: WorldSpec, height: int, width: int, frames: int) -> tuple[Tensor, Given, Given]:
    """Noise, and what the passes with and without the prompt are given."""
    net = spec.backbone
    size = (net.latent_channels, (frames - 1) // TIME_STEP + 1, height // SPACE_STEP, width // SPACE_STEP)
    texts = [normal([seed], (net.text_tokens, net.text_dim)) for seed in (1, 2)]
    rays, yes = normal([3], (6, frames, height, width)), torch.ones(1, dtype=torch.bool)
    clip = normal([4], (net.image_tokens, net.image_dim or 0))
    told = WanConditions(texts[0], normal([5], size), rays, clip, yes)
    given = Given(told, rays, yes, yes)
    return normal([6], size), given, given._replace(conditions=told._replace(text=texts[1]), interact=~yes)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, value in {"part": 4, "height": 160, "width": 272, "num_frames": 21, "steps": 2, "repeats": 2}.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    options = parser.parse_args()
    torch.set_num_threads(1)
    spec = scaled(options.part)
    text = {"text_dim": 4096 // options.part, "text_tokens": 512, "image_dim": 1280 // options.part, "freq_dim": 256}
    spec = WorldSpec(replace(spec.backbone, **text), spec.branch)
    backbone = WanBackbone(spec.backbone).requires_grad_(False)
    backbone.init_weights(0)
    torch.nn.init.normal_(backbone.transformer.proj_out.weight, std=0.02, generator=torch.Generator().manual_seed(7))
    branch = GeometryBranch(spec, "stage2")
    randomise(branch)
    noise, given, empty = conditions_of(spec, options.height, options.width, options.num_frames)
    forms: dict[str, Networks] = {
        "everything at every step": Plain(backbone, branch),
        "heads once, keys at every step": Anew(backbone, branch),
        "ours": Networks(backbone, branch),
    }

    def loop(networks: Networks) -> Tensor:
        untouched: Callable[[int, Tensor, Tensor, Tensor], Tensor] = lambda _, __, latents, ___: latents  # noqa: E731
        scheduler = flow_scheduler(options.steps)
        return sample(networks, noise, given, empty, torch.tensor([GUIDANCE]), scheduler, untouched)[0]

    seconds: dict[str, list[float]] = {name: [] for name in forms}
    made: dict[str, Tensor] = {}
    for _ in range(options.repeats):
        for name, networks in forms.items():
            began = time.process_time()
            made[name] = loop(networks)
            seconds[name].append(time.process_time() - began)
    first, ours = min(seconds["everything at every step"]), made["ours"]
    known = Networks(backbone, branch).remembered(given).conditions.known
    assert known is not None
    pairs = [pair for keys in known.keys for pair in keys if pair is not None]
    print(
        f"keys and values: {sum(t.nbytes for pair in pairs for t in pair) / 2**20:.1f} MiB for the pass with the prompt"
    )
    print(f"{'':<34}{'CPU seconds':>12}{'slowest':>9}{'ratio':>8}{'latents differ':>16}")
    for name, taken in seconds.items():
        far = float((made[name] - ours).abs().max())
        print(f"{name:<34}{min(taken):>12.2f}{max(taken):>9.2f}{first / min(taken):>7.2f}x{far:>16.1e}")


if __name__ == "__main__":
    main()
