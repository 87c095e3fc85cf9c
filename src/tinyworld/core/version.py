"""The version, in one place: in checkpoints, weight files, `--version` and the package."""

__version__ = "0.1.0"
