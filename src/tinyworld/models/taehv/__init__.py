"""TAEHV: a tiny causal video autoencoder in all public variants."""

from tinyworld.models.taehv.model import Taehv
from tinyworld.models.taehv.stream import StreamingTaehv

__all__ = ["StreamingTaehv", "Taehv"]
