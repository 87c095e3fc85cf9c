"""Training of the video world."""
