"""From a folder of videos to batches of clips: list, scan, split, order, cut, load."""
