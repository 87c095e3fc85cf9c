"""What a service does not go beyond."""

import math
from dataclasses import dataclass, fields

from tinyworld.core.errors import ConfigError

MEBIBYTE = 2**20


@dataclass(frozen=True)
class Limits:
    """Of one service. Raises ConfigError with every value that cannot be.

    max_queue: jobs that wait or are being uploaded. max_upload_mb, max_disk_mb: MiB of one request, and of all jobs together.
    max_frames: of one clip. max_pixels: height × width of a video that is sent or made. max_steps: of denoising.
    job_minutes: how long one job may take. keep_hours: how long a finished job can be fetched.
    """

    max_queue: int = 16
    max_upload_mb: float = 200.0
    max_disk_mb: float = 20_000.0
    max_frames: int = 241
    max_pixels: int = 1920 * 1080
    max_steps: int = 100
    job_minutes: float = 60.0
    keep_hours: float = 24.0

    def __post_init__(self) -> None:
        problems = []
        for key in fields(self):
            value = getattr(self, key.name)
            if not (math.isfinite(value) and value > 0):
                problems.append(f"--{key.name} {value} must be above 0; {key.default} is usual.")
        if not problems and self.max_upload_mb > self.max_disk_mb:
            problems.append(
                f"--max_upload_mb {self.max_upload_mb:g} is more than all jobs together may take, --max_disk_mb "
                f"{self.max_disk_mb:g}. Raise the one or lower the other."
            )
        if problems:
            raise ConfigError(problems)

    @property
    def upload_bytes(self) -> int:
        return int(self.max_upload_mb * MEBIBYTE)

    @property
    def disk_bytes(self) -> int:
        return int(self.max_disk_mb * MEBIBYTE)
