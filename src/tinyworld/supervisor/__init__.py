"""Keeps a training going: starts its processes, understands why they ended, and starts them again. Needs core only."""

from tinyworld.supervisor.supervise import Job, supervise

__all__ = ["Job", "supervise"]
