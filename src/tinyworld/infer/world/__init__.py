"""Worlds: generated or lifted scenes, what they are on disk, cameras to ask for."""
