"""Small files that any number of processes, also on several machines, write into one folder."""

import os
from pathlib import Path
from uuid import uuid4

from tinyworld.core.files import STAGING_PREFIX


def publish(file: Path, payload: bytes) -> None:
    """Put a file in place in one step: complete or absent, the last writer stays.

    The staging name belongs to this call alone: processes of two machines can have the same number. Nothing waits for
    the disk: what a power cut leaves half-written has to be found out by its reader.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    staging = file.with_name(f"{STAGING_PREFIX}{os.getpid()}-{uuid4().hex}")
    try:
        staging.write_bytes(payload)
        staging.replace(file)
    except OSError as error:  # the staging name says nothing to a person, and a full disk names no file at all
        raise OSError(error.errno, error.strerror or str(error), str(file)) from error
    finally:
        staging.unlink(missing_ok=True)
