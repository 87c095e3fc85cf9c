"""The video transformer with its geometry branch as one module, by the names that the public training guide uses."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from tinyworld.core.errors import ConfigError, nearest_name
from tinyworld.core.world_sizes import BranchSpec, WorldSpec
from tinyworld.models.fantasy.backbone import WanBackbone, WanConditions
from tinyworld.models.fantasy.branch import GeometryBranch, Joint, Stage
from tinyworld.models.fantasy.weights import LineageRow, load_into, read_branch

STAGES: dict[str, Stage] = {"stage1": "stage1", "stage2": "stage2"}
BRANCH_PARTS = frozenset(
    {
        "latent_bridge",
        "geo_blocks",
        "head_depth",
        "head_point",
        "head_camera",
        "pose_enc",
        "token_camera",
        "tokens_register",
        "camera_adapters",
        "irg_cross_attns",
    }
)
"""Parts of the branch that are also attributes of the transformer."""


class FantasyWorldTransformer(nn.Module):
    """A frozen Wan transformer; after `enable_fantasy_world_mode` it predicts geometry beside the video.

    sizes: those of the branch. base_digest: digest of the backbone's weights; when given, files of a branch that was trained
    beside another one are refused.
    """

    def __init__(self, backbone: WanBackbone, sizes: BranchSpec, base_digest: str | None = None) -> None:
        super().__init__()
        self.backbone = backbone.requires_grad_(False)
        self.sizes, self.base_digest = sizes, base_digest
        self.branch: GeometryBranch | None = None

    def enable_fantasy_world_mode(
        self, split_layer: int = 12, training_stage: str = "stage1", seed: int = 0, checkpointing: bool = False
    ) -> None:
        """Put a fresh geometry branch beside the backbone's blocks from `split_layer` on, on the device of the backbone.

        seed: of its starting weights. checkpointing: less memory in training for more time. Raises ConfigError for an unknown
        stage and a split that leaves too few blocks.
        """
        if training_stage not in STAGES:
            hint = nearest_name(training_stage, list(STAGES))
            raise ConfigError(f"training_stage={training_stage} is unknown; it is one of {', '.join(STAGES)}.{hint}")
        spec = WorldSpec(self.backbone.spec, replace(self.sizes, split=split_layer))
        branch = GeometryBranch(spec, STAGES[training_stage], checkpointing)
        branch.init_from_backbone(self.backbone, seed)
        self.branch = branch.to(next(self.backbone.parameters()).device)

    def load_trained(self, file: str | Path) -> list[LineageRow]:
        """Load a branch's weight file and say what was loaded, is new and was not used. Errors as in `weights.load_into`."""
        branch = self._enabled()
        state, info = read_branch(file)
        return load_into(branch, state, info, self.base_digest)

    def forward(
        self,
        noisy: Tensor,
        timestep: Tensor,
        conditions: WanConditions,
        rays: Tensor,
        shown: Tensor,
        steered: Tensor | None = None,
        interact: Tensor | None = None,
        video: bool = True,
    ) -> Joint:
        """Velocity and geometry; arguments as in `GeometryBranch.forward`."""
        branch = self._enabled()
        return branch(self.backbone, noisy, timestep, conditions, rays, shown, steered, interact, video)

    def _enabled(self) -> GeometryBranch:
        if self.branch is None:
            raise ConfigError("There is no geometry branch yet: call enable_fantasy_world_mode(…) first.")
        return self.branch

    def __getattr__(self, name: str) -> Any:
        branch = self.__dict__.get("_modules", {}).get("branch")
        if name in BRANCH_PARTS and branch is not None:
            return getattr(branch, name)
        return super().__getattr__(name)
