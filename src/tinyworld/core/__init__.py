"""Ground floor: errors, frame arithmetic, files, processes, randomness. Imports nothing of tinyworld's."""
