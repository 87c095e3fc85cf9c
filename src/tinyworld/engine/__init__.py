"""The training engine: loop, checkpoints, guard, evaluation, journal. It knows tasks by their protocol, never a model."""
