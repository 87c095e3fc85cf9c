"""SHA-256 of video files, remembered in a folder by path, size and modification time."""

import hashlib
import json
from pathlib import Path
from typing import Any

from tinyworld.core.files import sha256
from tinyworld.data.publish import publish


class VideoDigests:
    """One small JSON file per video, so that processes sharing the folder never lose each other's results.

    A record that is absent, damaged or about another state of the file is made anew.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._known: dict[Path, dict[str, Any]] = {}

    def digest(self, video: Path) -> str:
        """Hex SHA-256 of the file's content. Raises OSError when it cannot be read."""
        return str(self._record(video)["sha256"])

    def fault(self, video: Path) -> str | None:
        """Why this content cannot be used as a video, as `mark` was told; None when nothing is known against it."""
        try:
            return self._record(video).get("fault")
        except OSError as error:
            return error.strerror or str(error)

    def mark(self, video: Path, reason: str) -> None:
        """Remember why this content cannot be used. Nothing is remembered of a file that has none: gone, or locked."""
        try:
            record = self._record(video)
        except OSError:
            return
        self._keep(video, {**record, "fault": reason})

    def _record(self, video: Path) -> dict[str, Any]:
        found = video.stat()
        state = [found.st_size, found.st_mtime_ns]
        record = self._known.get(video) or self._load(video)
        if record is None or record.get("state") != state or not isinstance(record.get("sha256"), str):
            record = {"path": str(video), "state": state, "sha256": sha256(video)}
            self._keep(video, record)
        self._known[video] = record
        return record

    def _load(self, video: Path) -> dict[str, Any] | None:
        try:
            record = json.loads(self._file(video).read_bytes())
        except (OSError, ValueError):
            return None
        return record if isinstance(record, dict) and record.get("path") == str(video) else None

    def _keep(self, video: Path, record: dict[str, Any]) -> None:
        self._known[video] = record
        publish(self._file(video), json.dumps(record).encode())

    def _file(self, video: Path) -> Path:
        name = hashlib.sha256(str(video).encode("utf-8", "surrogateescape")).hexdigest()
        return self.folder / f"{name[:32]}.json"
