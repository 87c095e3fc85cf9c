"""One verdict for all ranks on a step's numbers: a non-finite loss or gradient skips the step everywhere, or nowhere."""

import math

from tinyworld.core import dist
from tinyworld.core.errors import TrainingError


class NonFiniteGuard:
    """Counts skipped steps in a row and stops a run that no longer learns.

    A bad batch now and then is survivable: its update is dropped on all ranks and its sample ids are recorded. A run whose
    every step is non-finite has lost its weights, and going on would only burn hours.
    """

    def __init__(self, limit: int, in_a_row: int = 0) -> None:
        self.limit = limit
        self.in_a_row = in_a_row

    def must_skip(self, loss: float, gradient_norm: float) -> bool:
        """True on every rank when any rank's loss or gradient norm is not finite."""
        skip = dist.agree(not (math.isfinite(loss) and math.isfinite(gradient_norm)))
        self.in_a_row = self.in_a_row + 1 if skip else 0
        return skip

    def check_limit(self, step: int, ids: list[str]) -> None:
        """Raises TrainingError after too many skipped steps in a row."""
        if self.in_a_row > self.limit:
            raise TrainingError(
                f"{self.in_a_row} steps in a row up to step {step} had a non-finite loss or gradient (limit: "
                f"training.max_skipped_steps={self.limit}); the last batch held {', '.join(ids[:4])}. The weights before "
                "them are in the newest checkpoint. Usual causes: learning_rate too high (try a tenth), a broken clip "
                "(try `tinyworld data scan --deep`), or mixed_precision (try --mixed_precision no)."
            )
