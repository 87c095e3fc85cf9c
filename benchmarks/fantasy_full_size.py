"""FantasyWorld at its published widths on an ordinary machine: optimizer steps of stage 1 and of stage 2.

    python benchmarks/fantasy_full_size.py [--height 64 --width 96 --num_frames 5 --steps 2 --folder DIR]

Everything is as in training (branch, losses, autocast, DataParallel with its AdamW), but for weights and clips: the frozen
transformer is random, written once to a file and mapped from it, so that its pages are the file's; the clip is made up; latents,
text and image tokens are random numbers of the right shapes, as a condition cache would give them. Each stage runs in a process
of its own, which the system is asked to end first when memory runs short.

Stage 2 keeps AdamW's two moments in a file that is mapped into memory, fp32 as ever: equal numbers, but 8.8 GiB less that the
system could not take back when others need memory. --moments says so for both stages, or for none.

Printed for each step: seconds of forward and backward, and of the update; the most resident memory that the process ever had
(VmHWM, mapped pages of files included), and the most of it that was the process's own.
"""

import argparse
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import torch

from tinyworld.config.load import load_recipe
from tinyworld.config.schema import FantasyRecipe
from tinyworld.core.world_sizes import SPACE_STEP, TIME_STEP, BackboneSpec, world_size
from tinyworld.data.worlds.batch import WorldBatch
from tinyworld.engine.parallel.ddp import DataParallel
from tinyworld.engine.task import Losses
from tinyworld.losses.flow import FlowSchedule
from tinyworld.models.fantasy.backbone import WanBackbone, kept_dtype
from tinyworld.models.fantasy.backbone_weights import open_backbone, write_weights
from tinyworld.models.fantasy.branch import GeometryBranch
from tinyworld.tasks.fantasy.inputs import Encoded, assembled, drawn
from tinyworld.tasks.fantasy.made_up import made_up_batch
from tinyworld.tasks.fantasy.objective import flow_losses, geometry_losses, joined

SIZE = "wan_fun_1_3b"
GIB = 2**30


def write_backbone(file: Path) -> None:
    """Random weights in the number types in which training keeps them, so that nothing is converted when they are mapped."""
    spec = world_size(SIZE).backbone
    generator = torch.Generator().manual_seed(0)
    tensors = {}
    for name, empty in WanBackbone.hollow(spec).state_dict().items():
        tensor = torch.empty(empty.shape, dtype=kept_dtype(name, torch.bfloat16))
        tensors[name] = tensor.fill_(1) if "norm" in name else tensor.normal_(0, 0.02, generator=generator)
    write_weights(file, tensors, spec)


@torch.no_grad()
def randomise(branch: GeometryBranch) -> None:
    """Weights that let gradients through everywhere, gates and adapters included: their real start takes minutes to draw."""
    generator = torch.Generator().manual_seed(2)
    for name, parameter in branch.named_parameters():
        parameter.fill_(1) if "norm" in name and parameter.ndim == 1 else parameter.normal_(
            0, 0.02, generator=generator
        )


class Resident(threading.Thread):
    """Looks at this process's memory four times a second."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.own = 0.0

    def run(self) -> None:
        while True:
            self.own = max(self.own, self._now()["RssAnon"])
            time.sleep(0.25)

    def __str__(self) -> str:
        return f"peak {self._now()['VmHWM']:.2f} GiB, of which its own at most {self.own:.2f}"

    @staticmethod
    def _now() -> dict[str, float]:
        lines = Path("/proc/self/status").read_text().splitlines()
        return {line.split(":")[0]: int(line.split()[1]) * 1024 / GIB for line in lines if line.endswith("kB")}


def map_moments(strategy: DataParallel, folder: Path) -> None:
    """AdamW's moments, zero as before the first step, in a file of `folder`."""
    for number, parameter in enumerate(strategy.parameters.values()):
        state = {"step": torch.zeros(())}
        for name in ("exp_avg", "exp_avg_sq"):
            file = str(folder / f"{name}-{number}")
            state[name] = torch.from_file(file, shared=True, size=parameter.numel()).view_as(parameter)
        strategy.optimizer.state[parameter] = state


def encoded(spec: BackboneSpec, batch: WorldBatch) -> Encoded:
    """What a condition cache would give for the batch."""
    generator = torch.Generator().manual_seed(1)
    count, frames, _, height, width = batch.frames.shape
    size = (count, spec.latent_channels, (frames - 1) // TIME_STEP + 1, height // SPACE_STEP, width // SPACE_STEP)
    latents = torch.randn(size, generator=generator)
    text = torch.randn(count, spec.text_tokens, spec.text_dim, generator=generator)
    clip = torch.randn(count, spec.image_tokens, spec.image_dim, generator=generator) if spec.image_dim else None
    return Encoded(latents, latents[:, :, :1], text, torch.zeros_like(text[0]), clip)


def losses_of(recipe: FantasyRecipe, model: torch.nn.Module, backbone: WanBackbone, batch: WorldBatch) -> Losses:
    """As `FantasyTask.step`, behind the encoders."""
    loss, schedule, device = recipe.loss, FlowSchedule(recipe.loss.flow_shift), torch.device("cpu")
    given = drawn(loss, batch.noise_seeds, device)
    inputs = assembled(encoded(recipe.spec().backbone, batch), batch, given, schedule, None, loss.timestep_sampling)
    arguments = (backbone, inputs.noisy, inputs.timestep, inputs.conditions, inputs.rays, given.camera)
    if recipe.stage == "stage1":
        return geometry_losses(loss, batch, inputs, model(*arguments).geometry)
    velocity, made = model(*arguments, steered=given.camera, interact=given.interaction)
    return joined(flow_losses(loss, schedule, inputs, velocity), geometry_losses(loss, batch, inputs, made))


def train(options: argparse.Namespace) -> None:
    """Steps of one stage in this process."""
    Path("/proc/self/oom_score_adj").write_text("1000")
    size = {"height": options.height, "width": options.width, "num_frames": options.num_frames}
    changes = {**size, "train_batch_size": 1, "gradient_accumulation_steps": 1, "device": "cpu"}
    recipe = load_recipe(f"fantasy_{options.stage}", changes, complete=False)
    assert isinstance(recipe, FantasyRecipe) and recipe.stage != "base"
    resident = Resident()
    resident.start()
    began = time.perf_counter()
    backbone = open_backbone(options.folder / "backbone.safetensors", torch.bfloat16, recipe.spec().backbone)
    branch = GeometryBranch(recipe.spec(), recipe.stage, recipe.training.gradient_checkpointing)
    randomise(branch)
    strategy = DataParallel(recipe, branch, torch.device("cpu"))
    mapped = tempfile.TemporaryDirectory(prefix="moments-", dir=options.folder)
    if options.moments == "file" or (options.moments is None and recipe.stage == "stage2"):
        map_moments(strategy, Path(mapped.name))
    count = sum(parameter.numel() for parameter in branch.parameters())
    print(f"{options.stage}: {count:,} trained, made in {time.perf_counter() - began:.0f} s; {resident}", flush=True)
    batch = made_up_batch(1, **size)
    for step in range(options.steps):
        began = time.perf_counter()
        losses = losses_of(recipe, strategy.model, backbone, batch)
        total = losses.total
        strategy.backward(total, last=True)
        passed = time.perf_counter()
        norm = strategy.reduce()
        strategy.update(recipe.optimizer.learning_rate, norm, recipe.training.max_grad_norm)
        updated = time.perf_counter()
        print(
            f"{options.stage} step {step + 1}: loss {float(total.detach()):.4f}, gradient norm {norm:.4g}; forward and backward "
            f"{passed - began:.1f} s, update {updated - passed:.1f} s; {resident}",
            flush=True,
        )
    mapped.cleanup()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--height", type=int, default=64)
    parser.add_argument("--width", type=int, default=96)
    parser.add_argument("--num_frames", type=int, default=5)
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument(
        "--moments", choices=("memory", "file"), help="where AdamW's moments lie; unset: stage 2 in a file"
    )
    parser.add_argument(
        "--folder", type=Path, help="where the transformer's file (3.2 GB) is kept; unset: made and removed"
    )
    parser.add_argument("--stage", choices=("write", "stage1", "stage2"), help="one part alone, in this process")
    options = parser.parse_args()
    if options.stage == "write":
        write_backbone(options.folder / "backbone.safetensors")
        return
    if options.stage is not None:
        train(options)
        return
    with tempfile.TemporaryDirectory(prefix="fantasy-full-size-") as made:
        folder = options.folder or Path(made)
        folder.mkdir(parents=True, exist_ok=True)
        parts = ("stage1", "stage2") if (folder / "backbone.safetensors").is_file() else ("write", "stage1", "stage2")
        for part in parts:
            given = [f"--{name}={value}" for name, value in vars(options).items() if value is not None]
            subprocess.run([sys.executable, __file__, *given, f"--stage={part}", f"--folder={folder}"], check=True)


if __name__ == "__main__":
    main()
