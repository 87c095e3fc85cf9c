"""The form of a cause. The causes themselves are data: `recorded` holds the guide's sixteen, `common` the others."""

import re
from collections.abc import Callable
from dataclasses import dataclass

Facts = dict[str, int | float | str]
"""What a pattern's named groups caught (digits as numbers), and what was computed from it, for the texts."""


@dataclass(frozen=True)
class Cause:
    """Something known to go wrong.

    `why`, `prevented` and `now` may hold the {names} of what the pattern caught.
    """

    slug: str
    """Its name. Causes that share one are the same thing in other words, and are reported once."""
    title: str
    patterns: tuple[str, ...]
    """Regular expressions, the most telling one first. A named group catches a fact."""
    why: str
    prevented: str
    """What keeps it from happening in tinyworld, or makes it clear before work is lost."""
    now: str
    """The key or command to type. Lines that begin with "$ " are commands, shown as they are."""
    guide_error: int | None = None
    """Its number among the sixteen errors of the guide."""
    fits: Callable[[Facts], Facts | None] | None = None
    """Arithmetic on the caught facts: more facts for the texts, or None where they do not belong to this cause."""
    near: str | None = None
    """A regular expression that must be found in the lines around, where the line alone fits several causes."""
    newest_only: bool = False
    """Whether only the newest line of this form counts: a low PSNR that has risen since is no fault."""
    last_resort: bool = False
    """A consequence of other faults, reported only where none of them is found."""

    @property
    def compiled(self) -> tuple[re.Pattern[str], ...]:
        return tuple(re.compile(pattern) for pattern in self.patterns)
