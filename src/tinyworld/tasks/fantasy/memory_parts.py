"""What a pass of a FantasyWorld recipe needs on its device: its own networks run on tensors without content.

Counted with PyTorch's fake tensors on a made-up CPU, where autocast and attention go the way that they go on a GPU: scores of
attention are never held (flash attention), bf16 copies of weights that autocast keeps are counted where they are made. The
losses look at the values of masks, so they run for real on small pictures, and their share is scaled by the pixels.
"""

from collections.abc import Callable
from dataclasses import astuple
from functools import lru_cache
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from tinyworld.config.fantasy import FantasyLossConfig
from tinyworld.config.schema import FantasyRecipe
from tinyworld.core.world_sizes import SPACE_STEP, TIME_STEP, BackboneSpec, world_size
from tinyworld.data.worlds.batch import WorldBatch
from tinyworld.engine.memory import Counted, count
from tinyworld.engine.parallel.precision import Forward
from tinyworld.losses.flow import FlowSchedule
from tinyworld.models.fantasy.backbone import WanBackbone, WanConditions
from tinyworld.models.fantasy.branch import GeometryBranch
from tinyworld.models.fantasy.prediction import Geometry
from tinyworld.tasks.fantasy.inputs import Encoded, assembled, fixed
from tinyworld.tasks.fantasy.made_up import made_up_batch
from tinyworld.tasks.fantasy.networks import DTYPES
from tinyworld.tasks.fantasy.objective import geometry_losses
from tinyworld.tasks.memory_plan import Clips

SMALL = 32
"""Height and width of the pictures on which the losses are counted."""

Networks = tuple[WanBackbone, GeometryBranch | None]
_KNOWN: dict[Any, Counted] = {}


def empty_networks(recipe: FantasyRecipe) -> Networks:
    """Transformer and branch as `networks.build_networks` makes them, without memory."""
    return _empty_networks(
        recipe.model.size, recipe.stage, recipe.model.backbone_dtype, recipe.training.gradient_checkpointing
    )


@lru_cache(maxsize=8)
def _empty_networks(size: str, stage: str, dtype: str, checkpointing: bool) -> Networks:
    spec = world_size(size)
    with FakeTensorMode():
        backbone = WanBackbone(spec.backbone)
        if stage == "base":
            return backbone, None
        frozen = backbone.cast(DTYPES[dtype]).requires_grad_(False).eval()
        return frozen, GeometryBranch(spec, cast(Any, stage), checkpointing)


def stepping(recipe: FantasyRecipe, clips: Clips) -> Counted:
    """Forward and backward pass of one micro-batch with all losses; of stage 1 one that looks at the diffusion loss."""
    training = recipe.training
    key = ("step", recipe.task, recipe.model, recipe.loss, training.gradient_checkpointing, training.mixed_precision)
    return _of_batch(key, clips, lambda clips: _stepping(recipe, clips))


def validating(recipe: FantasyRecipe, clips: Clips) -> Counted:
    """Velocity and geometry of a validation's batch; trained weights compute in fp32 there."""
    return _of_batch(("validating", recipe.task, recipe.model), clips, lambda clips: _validating(recipe, clips))


def _of_batch(key: Any, clips: Clips, work: Callable[[Clips], Counted]) -> Counted:
    """The count, made once for each size. All sizes are those of one clip times clips, plus weights: two counts tell of all
    batches."""
    number, *size = clips
    if number <= 2:
        known = (key, clips)
        if known not in _KNOWN:
            _KNOWN[known] = work(clips)
        return _KNOWN[known]
    one, two = (astuple(_of_batch(key, (count, size[0], size[1], size[2]), work)) for count in (1, 2))
    return Counted(*(second + (number - 2) * (second - first) for first, second in zip(one, two, strict=True)))


def _stepping(recipe: FantasyRecipe, clips: Clips) -> Counted:
    backbone, branch = empty_networks(recipe)
    trained = backbone if branch is None else branch
    losses = None if branch is None else _loss_bytes(recipe.loss, clips)
    model = Forward(trained, recipe, torch.device("cpu"))

    def run() -> Tensor:
        batch, noisy, conditions = _given(recipe.spec().backbone, clips)
        velocity, made = _passed(model, backbone, branch, noisy, conditions)
        outputs = [] if velocity is None or recipe.stage == "stage1" else [velocity]
        if made is not None:
            outputs += [*made[:4], *made.poses]
        held, working = (0, 0) if losses is None else (losses.held, losses.peak - losses.held)
        loss = cast(Tensor, _Losses.apply(held, working, *outputs))
        del batch, velocity, made, outputs
        return loss

    with _mode(trained):
        return count([backbone] if branch is None else [backbone, branch], run)


def _validating(recipe: FantasyRecipe, clips: Clips) -> Counted:
    backbone, branch = empty_networks(recipe)

    @torch.no_grad()
    def run() -> None:
        batch, noisy, conditions = _given(recipe.spec().backbone, clips)
        _passed(backbone if branch is None else branch, backbone, branch, noisy, conditions)
        del batch

    with _mode(backbone):
        return count([backbone] if branch is None else [backbone, branch], run)


def _mode(module: nn.Module) -> FakeTensorMode:
    """The mode that the module's parameters belong to: fake tensors of two modes do not mix."""
    return cast(FakeTensorMode, cast(Any, next(module.parameters())).fake_mode)


def _given(spec: BackboneSpec, clips: Clips) -> tuple[list[Tensor], Tensor, WanConditions]:
    """What lies on the device in a pass: the batch's own tensors, noisy latents, conditions."""
    count, height, width, frames = clips
    pixels = (count, frames, height, width)
    size = (count, spec.latent_channels, (frames - 1) // TIME_STEP + 1, height // SPACE_STEP, width // SPACE_STEP)
    batch = [
        torch.empty(count, frames, 3, height, width, dtype=torch.uint8),
        torch.empty(pixels),
        torch.empty(pixels, dtype=torch.bool),
        torch.empty(*pixels, 3),
        *(torch.empty(size) for _ in range(2)),  # latents and noise
    ]
    text = torch.empty(count, spec.text_tokens, spec.text_dim)
    clip = None if spec.image_dim is None else torch.empty(count, spec.image_tokens, spec.image_dim)
    flags = torch.empty(count, dtype=torch.bool)
    rays = torch.empty(count, 6, frames, height, width)
    return batch, torch.empty(size), WanConditions(text, torch.empty(size), rays, clip, flags)


def _passed(
    model: nn.Module, backbone: WanBackbone, branch: GeometryBranch | None, noisy: Tensor, conditions: WanConditions
) -> tuple[Tensor | None, Geometry | None]:
    """As `FantasyTask.step`."""
    timestep, rays, flags = torch.empty(len(noisy)), conditions.camera, conditions.steered
    if branch is None:
        return model(noisy, timestep, conditions), None
    arguments = (backbone, noisy, timestep, conditions, rays, flags)
    if branch.stage == "stage1":
        found = model(*arguments, video=True)
    else:
        found = model(*arguments, steered=flags, interact=flags, video=True)
    return found.velocity, found.geometry


class _Losses(torch.autograd.Function):
    """Takes the memory that the losses take, and gives every output a gradient of its size."""

    @staticmethod
    def forward(ctx: Any, held: int, working: int, *made: Tensor) -> Tensor:
        ctx.working = working
        kept = _bytes(made[0], held)
        _bytes(made[0], working)
        ctx.save_for_backward(*kept, *made)
        ctx.kept = len(kept)
        return made[0].new_zeros(())

    @staticmethod
    def backward(ctx: Any, *_: Any) -> tuple[Tensor | None, ...]:
        made = ctx.saved_tensors[ctx.kept :]
        _bytes(made[0], ctx.working)
        return None, None, *(torch.empty_like(value) for value in made)


def _bytes(like: Tensor, size: int) -> list[Tensor]:
    """So many bytes in tensors of the size of `like`: one large one would be taken for what a convolution copies."""
    whole, rest = divmod(size, max(like.nbytes, 1))
    return [like.new_empty(part, dtype=torch.uint8) for part in [like.nbytes] * whole + [rest]]


class _Outputs(nn.Module):
    """What the branch made, as parameters, and the batch, as buffers: theirs is counted elsewhere."""

    def __init__(self, made: Geometry, batch: WorldBatch) -> None:
        super().__init__()
        self.maps = nn.ParameterList(made[:4])
        self.poses = nn.ParameterList(made.poses)
        for name in ("depth", "mask", "points"):
            self.register_buffer(name, getattr(batch, name))

    def geometry(self) -> Geometry:
        depth, depth_confidence, points, point_confidence = self.maps
        return Geometry(depth, depth_confidence, points, point_confidence, tuple(self.poses))


def _loss_bytes(loss: FantasyLossConfig, clips: Clips) -> Counted:
    """Of the geometry losses, run on a small clip as long as the real ones."""
    number, height, width, frames = clips
    batch = made_up_batch(1, SMALL, SMALL, frames)
    shape = batch.depth.shape
    maps = (torch.ones(shape), torch.full(shape, 2.0), torch.ones(*shape, 3), torch.full(shape, 2.0))
    outputs = _Outputs(Geometry(*maps, tuple(torch.ones(1, frames, 9) for _ in range(4))), batch)
    zeros = torch.zeros(1, 16, 1, 1, 1)
    known = Encoded(zeros, zeros, torch.zeros(1, 1, 1), torch.zeros(1, 1))
    given = fixed(1, zeros.device, camera=True)
    inputs = assembled(known, batch, given, FlowSchedule(loss.flow_shift), torch.zeros(1, dtype=torch.long), "")
    found = count([outputs], lambda: geometry_losses(loss, batch, inputs, outputs.geometry()).total)
    times = number * height * width / SMALL**2
    return Counted(int(found.held * times), int(found.peak * times), 0)
