"""A worker without models: what it does is the prompt's word. A new process must be able to import this, fast."""

import os
import time
from pathlib import Path
from typing import Any, NoReturn

from tinyworld.core.errors import DataError, WeightsError
from tinyworld.service.abilities import Abilities
from tinyworld.service.jobs import FILES
from tinyworld.service.worker import Outcome, Report, Work

ALL = Abilities({}, (32, 48, 5), True, True)


def opening(*_: object) -> tuple[Work, Abilities]:
    return work, ALL


def refusing() -> NoReturn:
    raise WeightsError("the weights are of another model")


def work(request: dict[str, Any], place: Path, name: str, report: Report) -> Outcome:
    (place / FILES).mkdir()
    match request.get("prompt"):
        case "slow":
            for step in range(10_000):
                report(step, 10_000)
                time.sleep(0.02)
        case "deaf":
            time.sleep(600)
        case "die":
            os._exit(3)
        case "fat":
            for piece in range(100):
                (place / FILES / f"{piece}").write_bytes(bytes(2**21))
                time.sleep(0.01)
        case "defect":
            raise RuntimeError("a secret detail")
        case "mistake":
            raise DataError("the picture is <b>wrong</b>")
    (place / FILES / "video.mp4").write_bytes(b"0123456789")
    (place / "left over").write_bytes(b"x")
    return Outcome(["video.mp4"], {"pid": os.getpid(), "psnr": float("nan")})
