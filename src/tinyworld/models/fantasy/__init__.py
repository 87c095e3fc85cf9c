"""A video diffusion transformer and a geometry branch that is trained beside it: video, depth, points and cameras at once."""
