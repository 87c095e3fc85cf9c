"""Loss functions. They know tensors, never models."""
