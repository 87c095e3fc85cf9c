"""Training of the tiny video autoencoder."""

from tinyworld.tasks.taehv.task import TaehvTask

__all__ = ["TaehvTask"]
