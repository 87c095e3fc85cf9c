"""Training tasks: where models, losses, metrics and data meet the engine."""
