"""Decoded videos kept in memory, for data sets that are small and seen many times.

A window in the middle of a video costs the decoding of everything since the keyframe before it, often the whole video.
Where the training set fits in memory, decoding it once is cheaper from the second epoch on.
"""

from collections import OrderedDict
from collections.abc import Sequence

import numpy as np

from tinyworld.data.scan import ClipRef
from tinyworld.media.read import Region, read_frames

CHANNELS = 3


class FrameCache:
    """Frames by video, the least recently used dropped first.

    budget: bytes of decoded frames to keep; 0 keeps nothing. A video larger than the budget is read window by window.
    What comes back never depends on what is kept. Each loader process has a cache of its own.
    """

    def __init__(self, budget: int) -> None:
        self.budget = budget
        self.bytes = 0
        self._videos: OrderedDict[str, np.ndarray] = OrderedDict()

    def read(self, clip: ClipRef, indices: Sequence[int], region: Region) -> np.ndarray:
        """A region (top, left, height, width) of the frames `indices` of a clip, uint8 T H W C.

        Raises DataError; where the whole video is kept, also when it is damaged outside of `indices`.
        """
        key = str(clip.path)
        if key not in self._videos:
            if clip.frames * clip.height * clip.width * CHANNELS > self.budget:
                return read_frames(clip.path, indices, region)
            self._keep(key, read_frames(clip.path, range(clip.frames)))
        self._videos.move_to_end(key)
        top, left, height, width = region
        return self._videos[key][:, top : top + height, left : left + width][list(indices)]

    def _keep(self, key: str, frames: np.ndarray) -> None:
        self._videos[key] = frames
        self.bytes += frames.nbytes
        while self.bytes > self.budget:
            _, dropped = self._videos.popitem(last=False)
            self.bytes -= dropped.nbytes
