"""Camera head: one token per latent frame → a pose per video frame, refined in a few iterations.

As in VGGT (arXiv 2503.11651) and FantasyWorld (arXiv 2509.21657): each iteration embeds the pose so far (detached), modulates
the tokens with it, lets them attend to each other over the clip and adds a change to the pose. Ours: the sum starts at the
learned empty pose, which starts as the identity with a field of view of one radian. The field of view goes through a
ReLU, which passes no gradient at or below zero, so it has to start well above.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tinyworld.core.world_sizes import TIME_STEP, BranchSpec
from tinyworld.models.fantasy.temporal import LINEAR_STD, RESIDUAL_SCALE, draw_normal, without_autocast

START_POSE = (0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0, 1.0, 1.0)
"""Translation, quaternion XYZW, vertical and horizontal field of view in radians."""
POSE_WIDTH = len(START_POSE)
LAYER_SCALE = 0.01
MLP_RATIO = 4


class TrunkBlock(nn.Module):
    """Pre-norm transformer block over the frames of a clip (B F width), each half scaled per channel (LayerScale)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1 = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)
        self.scale1 = nn.Parameter(torch.full((width,), LAYER_SCALE))
        self.norm2 = nn.LayerNorm(width)
        self.expand = nn.Linear(width, MLP_RATIO * width)
        self.contract = nn.Linear(MLP_RATIO * width, width)
        self.scale2 = nn.Parameter(torch.full((width,), LAYER_SCALE))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(self.norm1(x)).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        x = x + self.scale1 * self.proj(attended)
        return x + self.scale2 * self.contract(F.gelu(self.expand(self.norm2(x))))


def exact_linear(linear: nn.Linear, x: Tensor) -> Tensor:
    """The layer in fp32, also under autocast: poses need more than bf16's three digits."""
    with without_autocast(x):
        return F.linear(x.float(), linear.weight.float(), linear.bias.float())


def activated(pose: Tensor) -> Tensor:
    """Translation and quaternion as they are, the two fields of view through a ReLU."""
    return torch.cat((pose[..., :7], F.relu(pose[..., 7:])), -1)


class CameraHead(nn.Module):
    """Camera tokens of the latent frames → poses of the video frames.

    in_width: channels of the tokens. Width, heads, blocks and iterations are those of `spec`.
    """

    def __init__(self, in_width: int, spec: BranchSpec) -> None:
        super().__init__()
        width = spec.camera_width
        self.iterations = spec.camera_iterations
        self.in_norm = nn.LayerNorm(in_width)
        self.enter = nn.Linear(in_width, width)
        self.spread = nn.Linear(width, TIME_STEP * width)
        self.token_norm = nn.LayerNorm(width)
        self.trunk = nn.Sequential(*(TrunkBlock(width, spec.camera_heads) for _ in range(spec.camera_blocks)))
        self.trunk_norm = nn.LayerNorm(width)
        self.empty_pose = nn.Parameter(torch.tensor(START_POSE))
        self.embed = nn.Linear(POSE_WIDTH, width)
        self.modulation = nn.Linear(width, 3 * width)
        self.out1 = nn.Linear(width, width // 2)
        self.out2 = nn.Linear(width // 2, POSE_WIDTH)

    def forward(self, token: Tensor) -> tuple[Tensor, ...]:
        """B t in_width → fp32 B F 9 of every iteration, F = 4(t-1)+1; the last is the answer.

        Values: translation (3) and quaternion XYZW (4, not normalised) of the world→camera extrinsics, then vertical and
        horizontal field of view in radians, >= 0.
        """
        tokens = self._frames(self.enter(self.in_norm(token)))
        start = self.empty_pose.float().expand(*tokens.shape[:2], POSE_WIDTH)
        pose, shown = start, start
        poses = []
        for _ in range(self.iterations):
            pose = pose + self._change(tokens, shown)
            shown = pose.detach()
            poses.append(activated(pose))
        return tuple(poses)

    def _frames(self, tokens: Tensor) -> Tensor:
        """B t width → B F width, normalised: the first token stays one frame, each other becomes four."""
        # With one latent frame the layer works on nothing, and its gradient is zero instead of missing.
        later = self.spread(tokens[:, 1:]).unflatten(2, (TIME_STEP, -1)).flatten(1, 2)
        return self.token_norm(torch.cat((tokens[:, :1], later), 1))

    def _change(self, tokens: Tensor, shown: Tensor) -> Tensor:
        """What to add to the pose (fp32 B F 9), the pose so far being `shown`."""
        embedded = exact_linear(self.embed, shown).to(tokens.dtype)
        shift, scale, gate = self.modulation(F.silu(embedded)).chunk(3, -1)
        normal = F.layer_norm(tokens, tokens.shape[-1:], eps=1e-6)
        x = tokens + gate * (normal * (1 + scale) + shift)
        x = self.trunk_norm(self.trunk(x))
        return exact_linear(self.out2, F.gelu(self.out1(x)))

    @torch.no_grad()
    def init_weights(self, generator: torch.Generator) -> None:
        """Sets every parameter; all iterations start near START_POSE."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                small = RESIDUAL_SCALE if module is self.out2 else 1.0
                draw_normal(module.weight, small * LINEAR_STD, generator)
                nn.init.zeros_(module.bias)
            elif isinstance(module, nn.LayerNorm):
                nn.init.ones_(module.weight)
                nn.init.zeros_(module.bias)
            elif isinstance(module, TrunkBlock):
                nn.init.constant_(module.scale1, LAYER_SCALE)
                nn.init.constant_(module.scale2, LAYER_SCALE)
        # At first the four frames of a latent frame have its token.
        width = self.spread.in_features
        self.spread.weight += torch.eye(width, device=self.spread.weight.device).repeat(TIME_STEP, 1)
        self.empty_pose.copy_(torch.tensor(START_POSE))
