"""The geometry branch: everything that is trained for a video world, beside a frozen video transformer.

    video     begin ─ block 0 … split-1 ──┬──────── attend ─┐        ┌─ feed ─┐ … ─ end ─ velocity
    (frozen)      + β_i (stage 2)       bridge              cross (stage 2)
    geometry  camera tokens ──────────────┴─ frame ─ global ┘        └─ MLP ──┘ … ─ heads ─ depth, points, poses

One step per backbone block from `split` on. What a step collects is its tokens after frame attention beside its tokens after
the MLP. In stage 1 nothing of the branch reaches the video: the first `split` blocks run without gradient, the others only
when the velocity is asked for as a monitor, and geometry trains on the features of block split-1. In stage 2 both sides
exchange in every step, and gradients pass through all frozen blocks back to the camera adapters. With closed gates and silent
adapters, which is how they start, stage 2 gives the backbone's velocity and stage 1's geometry bit for bit.

Camera adapters are read from FantasyWorld (arXiv:2509.21657) as f_i = f_{i-1} + β_i: the hidden state f that enters video block i
gets the shift β_i = Linear_i(SiLU(c)), c being the pose encoder's tokens, equal for all blocks.
"""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from tinyworld.core.errors import ConfigError
from tinyworld.core.rng import derive_seed
from tinyworld.core.world_sizes import SPACE_STEP, TIME_STEP, WorldSpec
from tinyworld.models.fantasy.attention import Table, plane_table, repeated, space_time_tables
from tinyworld.models.fantasy.backbone import WanBackbone, WanConditions, WanState
from tinyworld.models.fantasy.bridge import TOKEN_STD, LatentBridge, special_tokens, with_specials
from tinyworld.models.fantasy.camera_condition import RAY_CHANNELS, CameraAdapter, PoseEncoder
from tinyworld.models.fantasy.camera_head import CameraHead
from tinyworld.models.fantasy.cross_attention import TwoWayCrossAttention
from tinyworld.models.fantasy.dpt import DptHead, depth_of, points_of
from tinyworld.models.fantasy.geodit import GeoBlock
from tinyworld.models.fantasy.prediction import Geometry
from tinyworld.models.fantasy.recompute import recomputed

Stage = Literal["stage1", "stage2"]
DEPTH_OUTPUTS, POINT_OUTPUTS = 2, 4


class Joint(NamedTuple):
    """velocity: B 16 t h w, None when stage 1 was not asked for it. geometry: of the same clip."""

    velocity: Tensor | None
    geometry: Geometry


class Tables(NamedTuple):
    """Positions of geometry tokens of a frame and of all frames; of video and geometry tokens in cross-attention."""

    geometry: tuple[Table, Table]
    cross: tuple[Table, Table]


class GeometryBranch(nn.Module):
    """The trainable part; 956,706,040 parameters in stage 1 and 1,176,332,536 in stage 2 at `wan_fun_1_3b`.

    The backbone is an argument of `forward`, never a part of the branch, and nothing is kept between calls. All weights are zero
    until `init_from_backbone` or a file sets them. checkpointing: compute each step (and in stage 2 each earlier
    block of the backbone) again in the backward pass instead of keeping its activations (`recompute`); equal gradients.
    """

    camera_adapters: nn.ModuleList
    irg_cross_attns: nn.ModuleList

    def __init__(self, spec: WorldSpec, stage: Stage, checkpointing: bool = False) -> None:
        super().__init__()
        _check_spec(spec)
        self.spec, self.stage, self.checkpointing = spec, stage, checkpointing
        with torch.random.fork_rng(
            devices=[]
        ):  # torch's layers draw on creation; nobody else's numbers may depend on it
            self._build(spec)
        steps = range(spec.geo_blocks)
        self.sharded_blocks = [f"geo_blocks.{step}.{part}" for step in steps for part in ("attend", "feed")]
        if stage == "stage2":
            self.sharded_blocks += [f"irg_cross_attns.{step}" for step in steps]

    def _build(self, spec: WorldSpec) -> None:
        width, sizes = spec.backbone.width, spec.branch
        self.latent_bridge = LatentBridge(width, sizes.bridge_width, sizes.bridge_heads)
        self.geo_blocks = nn.ModuleList(GeoBlock(width, sizes.heads, sizes.ffn) for _ in range(spec.geo_blocks))
        self.head_depth = DptHead(2 * width, sizes, DEPTH_OUTPUTS, checkpointing=self.checkpointing)
        self.head_point = DptHead(2 * width, sizes, POINT_OUTPUTS, checkpointing=self.checkpointing)
        self.head_camera = CameraHead(2 * width, sizes)
        self.pose_enc = PoseEncoder(sizes.pose_channels, width)
        self.token_camera, self.tokens_register = special_tokens(sizes.registers, width)
        if self.stage == "stage2":
            self.camera_adapters = nn.ModuleList(CameraAdapter(width) for _ in range(sizes.split))
            self.irg_cross_attns = nn.ModuleList(
                TwoWayCrossAttention(width, sizes.cross_width, sizes.cross_heads) for _ in range(spec.geo_blocks)
            )

    @torch.no_grad()
    def init_from_backbone(self, backbone: WanBackbone, seed: int) -> None:
        """Set all weights: a function of `seed`, the parts' names and the backbone, equal for both stages in what they share.

        Both attentions of step i start as the self-attention of backbone block split + i, with its time modulation, when
        heads are equally many and wide; gates, adapters, the bridge's and the pose encoder's last layer start at zero.
        """
        parts = {name: part for name, part in self.named_modules() if name and hasattr(part, "init_weights")}
        tops = [name for name in parts if not any(name.startswith(f"{other}.") for other in parts)]
        for name in tops:
            parts[name].init_weights(_generator(seed, name))
        for name in ("token_camera", "tokens_register"):
            token = self.get_parameter(name)
            token.copy_(torch.randn(token.shape, generator=_generator(seed, name)) * TOKEN_STD)
        blocks = backbone.transformer.blocks[self.spec.branch.split :]
        for block, wan in zip(self.geo_blocks, blocks, strict=True):
            assert isinstance(block, GeoBlock)
            block.take_modulation(wan.scale_shift_table)
            if self.spec.branch.heads == self.spec.backbone.heads:
                block.take_attention(wan.attn1)

    def forward(
        self,
        backbone: WanBackbone,
        noisy: Tensor,
        timestep: Tensor,
        conditions: WanConditions,
        rays: Tensor,
        shown: Tensor,
        steered: Tensor | None = None,
        interact: Tensor | None = None,
        video: bool = False,
    ) -> Joint:
        """Velocity and geometry of B clips.

        noisy: latents B 16 t h w. timestep: B in (0, 1000]. conditions: what the backbone is given. rays: Plücker B 6 F H W,
        F = 4(t-1) + 1, H = 8h, W = 8w, in the units of the geometry. shown: B bool, whose rays the geometry is given through
        the bridge. Stage 2 only: steered, B bool, whose rays the camera adapters are given; interact, B bool, which samples
        use the two-way cross-attention; None is all. video: in stage 1 finish the video as well, without gradient.

        Raises ValueError for rays that do not fit the latents and for stage 2's arguments in stage 1; DataError by the backbone.
        """
        self._check(noisy, rays, steered, interact)
        camera = self.pose_enc(rays).flatten(1, 3)
        if self.stage == "stage1":
            return self._first_stage(backbone, noisy, timestep, conditions, camera, shown, video)
        return self._second_stage(backbone, noisy, timestep, conditions, camera, shown, steered, interact)

    def _first_stage(
        self,
        backbone: WanBackbone,
        noisy: Tensor,
        timestep: Tensor,
        conditions: WanConditions,
        camera: Tensor,
        shown: Tensor,
        video: bool,
    ) -> Joint:
        with torch.no_grad():
            state = backbone.begin(noisy, timestep, conditions)
            feature = state.hidden
            for index in range(self.spec.branch.split):
                feature = backbone.block(index, feature, state)
        tables = self._tables(state)
        geometry, features = self._enter(feature, camera, shown, state.grid), []
        for index in range(self.spec.geo_blocks):
            geometry, collected = self._saving(self._geometry_step, index, geometry, state, tables)
            features.append(self._wanted(index, collected))
        velocity = None
        if video:
            with torch.no_grad():
                for index in range(self.spec.branch.split, self.spec.backbone.layers):
                    feature = backbone.block(index, feature, state)
                velocity = backbone.end(feature, state)
        return Joint(velocity, self._predict(features, state.grid))

    def _second_stage(
        self,
        backbone: WanBackbone,
        noisy: Tensor,
        timestep: Tensor,
        conditions: WanConditions,
        camera: Tensor,
        shown: Tensor,
        steered: Tensor | None,
        interact: Tensor | None,
    ) -> Joint:
        state = backbone.begin(noisy, timestep, conditions)
        hidden = self._steered_blocks(backbone, state, camera, steered)
        tables = self._tables(state)
        geometry, features = self._enter(hidden, camera, shown, state.grid), []
        for index in range(self.spec.geo_blocks):
            hidden, geometry, collected = self._saving(
                self._joint_step, backbone, index, hidden, geometry, state, tables, interact
            )
            features.append(self._wanted(index, collected))
        return Joint(backbone.end(hidden, state), self._predict(features, state.grid))

    def velocity(
        self,
        backbone: WanBackbone,
        noisy: Tensor,
        timestep: Tensor,
        conditions: WanConditions,
        rays: Tensor,
        shown: Tensor,
        steered: Tensor | None = None,
        interact: Tensor | None = None,
    ) -> Tensor:
        """Stage 2's velocity alone, bit for bit that of `forward`: without the heads, and without the whole geometry side when
        no sample interacts. Arguments and errors as there."""
        self._check(noisy, rays, steered, interact)
        camera = self.pose_enc(rays).flatten(1, 3)
        state = backbone.begin(noisy, timestep, conditions)
        hidden = self._steered_blocks(backbone, state, camera, steered)
        if interact is not None and not bool(interact.any()):
            for index in range(self.spec.branch.split, backbone.spec.layers):
                hidden = backbone.block(index, hidden, state)
            return backbone.end(hidden, state)
        tables, geometry = self._tables(state), self._enter(hidden, camera, shown, state.grid)
        for index in range(self.spec.geo_blocks):
            hidden, geometry, _ = self._joint_step(backbone, index, hidden, geometry, state, tables, interact)
        return backbone.end(hidden, state)

    def _steered_blocks(self, backbone: WanBackbone, state: WanState, camera: Tensor, steered: Tensor | None) -> Tensor:
        """Video tokens after the blocks below `split`, each moved by its camera adapter."""
        hidden = state.hidden
        for index in range(self.spec.branch.split):
            hidden = self._saving(self._steered_block, backbone, index, hidden, state, camera, steered)
        return hidden

    def _steered_block(
        self, backbone: WanBackbone, index: int, hidden: Tensor, state: WanState, camera: Tensor, steered: Tensor | None
    ) -> Tensor:
        shift = self.camera_adapters[index](camera)
        if steered is not None:
            shift = shift * steered[:, None, None]
        return backbone.block(index, hidden + shift.to(hidden.dtype), state)

    def _enter(self, feature: Tensor, camera: Tensor, shown: Tensor, grid: tuple[int, int, int]) -> Tensor:
        """Geometry tokens B t Pg D in the branch's number type, from video tokens and camera tokens, both B N D."""
        patches = self.latent_bridge(feature.to(self.token_camera.dtype), grid[0])
        patches = patches + (camera * shown[:, None, None]).view_as(patches)
        return with_specials(patches, self.token_camera, self.tokens_register)

    def _geometry_step(self, index: int, geometry: Tensor, state: WanState, tables: Tables) -> tuple[Tensor, Tensor]:
        block = self._geo_block(index)
        framed, geometry = block.attend(geometry, state.modulation, tables.geometry)
        geometry = block.feed(geometry, state.modulation)
        return geometry, torch.cat([framed, geometry], dim=-1)

    def _joint_step(
        self,
        backbone: WanBackbone,
        index: int,
        hidden: Tensor,
        geometry: Tensor,
        state: WanState,
        tables: Tables,
        interact: Tensor | None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        block, place = self._geo_block(index), self.spec.branch.split + index
        framed, geometry = block.attend(geometry, state.modulation, tables.geometry)
        hidden = backbone.attend(place, hidden, state)
        hidden, geometry = self.irg_cross_attns[index](hidden, geometry, tables.cross, interact)
        geometry = block.feed(geometry, state.modulation)
        hidden = backbone.feed(place, hidden, state)
        return hidden, geometry, torch.cat([framed, geometry], dim=-1)

    def _geo_block(self, index: int) -> GeoBlock:
        block = self.geo_blocks[index]
        assert isinstance(block, GeoBlock)
        return block

    def _wanted(self, index: int, collected: Tensor) -> Tensor | None:
        """What the heads read of a step, so that the rest need not be kept."""
        return collected if index in self.spec.branch.collect or index == self.spec.geo_blocks - 1 else None

    def _predict(self, features: list[Tensor | None], grid: tuple[int, int, int]) -> Geometry:
        specials = 1 + self.spec.branch.registers
        levels, last = [features[index] for index in self.spec.branch.collect], features[-1]
        patches = [level[:, :, specials:] for level in levels if level is not None]
        assert last is not None
        depth, depth_confidence = depth_of(self.head_depth(patches, grid))
        points, point_confidence = points_of(self.head_point(patches, grid))
        return Geometry(depth, depth_confidence, points, point_confidence, self.head_camera(last[:, :, 0]))

    def _tables(self, state: WanState) -> Tables:
        frames, rows, columns = state.grid
        sizes, device = self.spec.branch, state.hidden.device
        specials = 1 + sizes.registers
        frame = plane_table(rows, columns, specials, self.spec.backbone.width // sizes.heads, device)
        cross = space_time_tables(state.grid, specials, sizes.cross_width // sizes.cross_heads, device)
        return Tables((frame, repeated(frame, frames)), cross)

    def _saving(self, step: Callable[..., Any], *arguments: Any) -> Any:
        """The step; when `checkpointing`, computed again in the backward pass."""
        return recomputed(step, *arguments) if self.checkpointing else step(*arguments)

    def _check(self, noisy: Tensor, rays: Tensor, steered: Tensor | None, interact: Tensor | None) -> None:
        batch, _, frames, height, width = noisy.shape
        pixels = (TIME_STEP * (frames - 1) + 1, SPACE_STEP * height, SPACE_STEP * width)
        expected = (batch, RAY_CHANNELS, *pixels)
        if tuple(rays.shape) != expected:
            raise ValueError(f"rays of latents {tuple(noisy.shape)} are {expected}; got {tuple(rays.shape)}")
        if self.stage == "stage1" and not (steered is None and interact is None):
            raise ValueError(
                "steered and interact are for stage 2: stage 1 has no camera adapters and no cross-attention"
            )


def _check_spec(spec: WorldSpec) -> None:
    branch = spec.branch
    if not 0 < branch.split < spec.backbone.layers:
        raise ConfigError(
            f"split_layer={branch.split} leaves no blocks on one side: it must be from 1 to {spec.backbone.layers - 1}, the "
            "number of the backbone's blocks less one."
        )
    if max(branch.collect) >= spec.geo_blocks:
        raise ConfigError(
            f"split_layer={branch.split} leaves {spec.geo_blocks} of the backbone's {spec.backbone.layers} blocks for geometry, "
            f"but the heads read geometry blocks {branch.collect}, counted from 0: split_layer must be at most "
            f"{spec.backbone.layers - 1 - max(branch.collect)}."
        )


def _generator(seed: int, name: str) -> torch.Generator:
    return torch.Generator().manual_seed(derive_seed("geometry branch", seed, name))
