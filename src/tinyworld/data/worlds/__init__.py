"""Clips with depth and cameras: which there are, which of them can be used, and training samples cut out of them."""
