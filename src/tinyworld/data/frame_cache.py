"""Decoded videos kept in memory, for data sets that are small and seen many times.

A window in the middle of a video costs the decoding of everything since the keyframe before it, often the whole video.
Where the training set fits in memory, decoding it once is cheaper from the second epoch on.
"""

from collections.abc import Sequence

import numpy as np

from tinyworld.data.scan import ClipRef
from tinyworld.media.read import Region, read_frames

CHANNELS = 3


class FrameCache:
    """Frames by video. What came first stays; once the budget is full, other videos are read window by window.

    budget: bytes of decoded frames to keep; 0 keeps nothing. Dropping old videos for new ones would decode a whole video for
    nearly every window where the data set is larger than the budget: shuffled epochs come back to a video last of all.
    What comes back never depends on what is kept. Each loader process has a cache of its own.
    """

    def __init__(self, budget: int) -> None:
        self.budget = budget
        self.bytes = 0
        self._videos: dict[str, np.ndarray] = {}

    def read(self, clip: ClipRef, indices: Sequence[int], region: Region) -> np.ndarray:
        """A region (top, left, height, width) of the frames `indices` of a clip, uint8 T H W C.

        Raises DataError; where the whole video is kept, also when it is damaged outside of `indices`.
        """
        key = str(clip.path)
        if key not in self._videos:
            if self.bytes + clip.frames * clip.height * clip.width * CHANNELS > self.budget:
                return read_frames(clip.path, indices, region)
            self._videos[key] = read_frames(clip.path, range(clip.frames))
            self.bytes += self._videos[key].nbytes
        top, left, height, width = region
        return self._videos[key][:, top : top + height, left : left + width][list(indices)]
