"""The auxiliary trainers of a task, taken through a run together: device, updates, checkpoints."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from tinyworld.core import dist
from tinyworld.core.console import LOGGER
from tinyworld.engine import checkpoint
from tinyworld.engine.task import Auxiliary


class Auxiliaries:
    """All of them by name; with none, everything here does nothing."""

    def __init__(self, members: Mapping[str, Auxiliary], device: torch.device) -> None:
        self.members = dict(members)
        for member in self.members.values():
            member.to(device)

    def learn(self) -> dict[str, float]:
        """Update each after a successful step; their numbers to log."""
        return {name: value for member in self.members.values() for name, value in member.learn().items()}

    def forget(self) -> None:
        """The step that was shown to them does not count."""
        for member in self.members.values():
            member.forget()

    def states(self) -> dict[str, Any]:
        return {name: member.state_dict() for name, member in self.members.items()}

    def rank_states(self) -> dict[str, Any]:
        return {name: member.rank_state() for name, member in self.members.items()}

    def most_bytes(self) -> int:
        """What all of them may come to take in a checkpoint, of one rank."""
        return sum(member.most_bytes() for member in self.members.values())

    def load_states(self, folder: Path) -> None:
        """What all ranks share, from a folder that has state/NAME.pt of each."""
        for name, member in self.members.items():
            member.load_state_dict(checkpoint.read_state(folder, name))

    def restore(self, path: Path) -> None:
        """Go on as in a checkpoint. One that the checkpoint knows nothing of starts anew, and the log says so."""
        for name, member in self.members.items():
            state = checkpoint.read_state(path, name)
            if state is None:
                LOGGER.warning("%s has no %s: it starts anew", path.name, name)
                continue
            member.load_state_dict(state)
            if checkpoint.rank_count(path, name) == dist.world_size():
                member.load_rank_state(checkpoint.read_rank_state(path, name, dist.rank()))
            else:
                member.take_share(checkpoint.read_rank_states(path, name), dist.rank(), dist.world_size())
