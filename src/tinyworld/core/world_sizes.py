"""Sizes of a video world: the frozen Wan transformer (backbone) and the geometry branch that is trained beside it, as data.

Parameter counts of `wan_fun_1_3b`: backbone 1,616,313,152 (Wan2.1-Fun-V1.1-1.3B-Control-Camera); stage 1 trains 956,706,040,
stage 2 1,176,332,536. `demo` is the same code, small enough for two CPU cores.
"""

from dataclasses import asdict, dataclass
from typing import Any

from tinyworld.core.errors import ConfigError, nearest_name

PATCH = (1, 2, 2)
"""Latent frames, rows and columns of one token."""
TIME_STEP, SPACE_STEP = 4, 8
"""Frames and pixels per latent: the first frame has a latent of its own, then every four share one."""


@dataclass(frozen=True)
class BackboneSpec:
    """A Wan video diffusion transformer with camera control.

    in_channels: latents plus the latents of the first frame. text_tokens: always that many (zeros behind the prompt).
    image_dim: width of CLIP's image tokens, None without them. camera: whether it has the Fun control adapter.
    """

    layers: int
    heads: int
    head_dim: int
    ffn: int
    text_dim: int
    text_tokens: int
    image_dim: int | None
    freq_dim: int = 256
    latent_channels: int = 16
    in_channels: int = 32
    image_tokens: int = 257
    camera: bool = True

    @property
    def width(self) -> int:
        return self.heads * self.head_dim


@dataclass(frozen=True)
class BranchSpec:
    """The geometry branch. Its width is the backbone's; it has one block for each backbone block from `split` on.

    collect: blocks whose output the depth and point heads read, deepest first; their channels in `dpt_channels` shallowest
    resolution last (x4, x2, x1, /2), so dpt_channels[k] belongs to collect[k].
    """

    split: int
    heads: int
    ffn: int
    bridge_width: int
    bridge_heads: int
    collect: tuple[int, int, int, int]
    dpt_channels: tuple[int, int, int, int]
    dpt_fused: int
    camera_width: int
    camera_heads: int
    camera_blocks: int
    cross_width: int
    cross_heads: int
    pose_channels: int
    registers: int = 4
    camera_iterations: int = 4


@dataclass(frozen=True)
class WorldSpec:
    """Backbone and branch of one size."""

    backbone: BackboneSpec
    branch: BranchSpec

    @property
    def geo_blocks(self) -> int:
        return self.backbone.layers - self.branch.split

    def to_dict(self) -> dict[str, Any]:
        """Plain values, equal to themselves after a way through JSON."""
        branch = {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self.branch).items()}
        return {"backbone": asdict(self.backbone), "branch": branch}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "WorldSpec":
        """What `to_dict` made, also after JSON. Raises TypeError for other keys."""
        branch: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in values["branch"].items()
        }
        return cls(BackboneSpec(**values["backbone"]), BranchSpec(**branch))


SIZES = {
    "wan_fun_1_3b": WorldSpec(
        BackboneSpec(layers=30, heads=12, head_dim=128, ffn=8960, text_dim=4096, text_tokens=512, image_dim=1280),
        BranchSpec(
            split=12, heads=12, ffn=10112, bridge_width=512, bridge_heads=8, collect=(17, 11, 8, 5),
            dpt_channels=(128, 256, 512, 512), dpt_fused=128, camera_width=576, camera_heads=9, camera_blocks=4,
            cross_width=1152, cross_heads=12, pose_channels=160,
        ),
    ),
    "demo": WorldSpec(
        BackboneSpec(layers=8, heads=4, head_dim=24, ffn=256, text_dim=16, text_tokens=4, image_dim=None, freq_dim=64),
        BranchSpec(
            split=4, heads=4, ffn=384, bridge_width=48, bridge_heads=4, collect=(3, 2, 1, 0),
            dpt_channels=(16, 32, 48, 48), dpt_fused=16, camera_width=96, camera_heads=4, camera_blocks=2,
            cross_width=96, cross_heads=4, pose_channels=32,
        ),
    ),
}  # fmt: skip


def world_size(name: str) -> WorldSpec:
    """The sizes called `name`. Raises ConfigError naming the nearest one."""
    if name not in SIZES:
        known = ", ".join(SIZES)
        raise ConfigError(
            f"model.size={name} is unknown. Known sizes: {known}.{nearest_name(name, list(SIZES))} (key: model.size)"
        )
    return SIZES[name]
