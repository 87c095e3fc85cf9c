"""tinyworld: train and run tiny causal video autoencoders (TAEHV) and geometry-aware video worlds (FantasyWorld).

    from tinyworld import Taehv, StreamingTaehv, FramePlan

The names are loaded on first use, so that the command line and configuration checks do not wait for torch.
"""

from typing import TYPE_CHECKING, Any

from tinyworld.core.version import __version__

if TYPE_CHECKING:
    from tinyworld.core.frames import FramePlan
    from tinyworld.models.taehv import StreamingTaehv, Taehv

__all__ = ["FramePlan", "StreamingTaehv", "Taehv", "__version__"]


def __getattr__(name: str) -> Any:
    if name == "FramePlan":
        from tinyworld.core.frames import FramePlan

        return FramePlan
    if name in ("Taehv", "StreamingTaehv"):
        from tinyworld.models import taehv

        return getattr(taehv, name)
    raise AttributeError(f"module 'tinyworld' has no attribute {name!r}")
