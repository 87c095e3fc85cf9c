"""What a run knows beside weights: everything a resume needs to go on as if nothing had happened."""

from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass
class TrainingState:
    """Counted in optimizer steps; `step` steps are done, so `step` is also the index of the next one."""

    step: int = 0
    samples_seen: int = 0
    skipped_in_a_row: int = 0
    skipped_total: int = 0
    faults: dict[str, str] = field(default_factory=dict)
    """Clips that failed to decode while training: path → reason."""
    best_value: float | None = None
    best_step: int | None = None
    validations_without_improvement: int = 0
    history: list[dict[str, Any]] = field(default_factory=list)
    """The entries of validation_history.json."""

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, value: dict[str, Any]) -> "TrainingState":
        return cls(**value)
