"""The auxiliary trainers of a task, taken through a run together: device, updates, checkpoints."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from tinyworld.core.console import LOGGER
from tinyworld.engine import checkpoint
from tinyworld.engine.task import Auxiliary


class Auxiliaries:
    """All of them by name; with none, everything here does nothing."""

    def __init__(self, members: Mapping[str, Auxiliary], device: torch.device) -> None:
        self._members = dict(members)
        for member in self._members.values():
            member.to(device)

    def learn(self) -> dict[str, float]:
        """Update each after a successful step; their numbers to log."""
        return {name: value for member in self._members.values() for name, value in member.learn().items()}

    def forget(self) -> None:
        """The step that was shown to them does not count."""
        for member in self._members.values():
            member.forget()

    def states(self) -> dict[str, Any]:
        return {name: member.state_dict() for name, member in self._members.items()}

    def rank_states(self) -> dict[str, Any]:
        return {name: member.rank_state() for name, member in self._members.items()}

    def restore(self, path: Path) -> None:
        """Go on as in a checkpoint. One that the checkpoint knows nothing of starts anew, and the log says so."""
        for name, member in self._members.items():
            state, own = checkpoint.read_state(path, name), checkpoint.read_rank_state(path, name)
            if state is None:
                LOGGER.warning("%s has no %s: it starts anew", path.name, name)
                continue
            member.load_state_dict(state)
            if own is None:
                LOGGER.warning("%s comes from fewer processes: the %s memory of this one starts empty", path.name, name)
            else:
                member.load_rank_state(own)
