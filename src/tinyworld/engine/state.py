"""What a run knows beside weights: everything a resume needs to go on as if nothing had happened."""

from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass
class TrainingState:
    """Counted in optimizer steps; `step` steps are done, so `step` is also the index of the next one."""

    step: int = 0
    samples_seen: int = 0
    draws: str = ""
    """Digest of all samples of the run in their order; see `verdict.chained`."""
    left_out: int = 0
    """Steps' worth of samples that rewinds have passed over: step n trains on the batch of n + left_out."""
    rewinds: int = 0
    skipped_in_a_row: int = 0
    skipped_total: int = 0
    capsules: int = 0
    pieces: int = 1
    """Parts that each micro-batch is split into, since a whole one once did not fit into memory."""
    recent_losses: list[float] = field(default_factory=list)
    faults: dict[str, str] = field(default_factory=dict)
    """Clips that failed to decode while training: path → reason."""
    best_value: float | None = None
    best_step: int | None = None
    validations_without_improvement: int = 0
    history: list[dict[str, Any]] = field(default_factory=list)
    """The entries of validation_history.json."""
    unfinished: dict[str, Any] = field(default_factory=dict)
    """A validation that a signal cut short: its step, and the rows measured so far by sample number."""
    given_up: int | None = None
    """The step whose validation took too long."""

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, value: dict[str, Any]) -> "TrainingState":
        return cls(**value)
