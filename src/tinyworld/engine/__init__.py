"""The training engine: loop, checkpoints, verdicts, evaluation, journal. It knows tasks by their protocol, never a model."""
