"""A service in this process, without a network."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fastapi", reason="the service needs the extra serve: pip install 'tinyworld[serve]'")
pytest.importorskip("python_multipart", reason="the service needs the extra serve: pip install 'tinyworld[serve]'")
pytest.importorskip("httpx2", reason="the service's tests need httpx2, the client of starlette's TestClient")

from starlette.testclient import TestClient

from tests.service import fakes
from tinyworld.service.abilities import Abilities
from tinyworld.service.app import build_app
from tinyworld.service.jobs import Shelf
from tinyworld.service.limits import Limits
from tinyworld.service.queue import Queue
from tinyworld.service.worker import Opening, Worker

LOCAL = "http://127.0.0.1"
MP4 = b"\x00\x00\x00\x18ftypisom" + bytes(200)
PNG = b"\x89PNG\r\n\x1a\n" + bytes(50)


@contextmanager
def service(
    folder: Path,
    opening: Opening = fakes.opening,
    abilities: Abilities = fakes.ALL,
    token: str | None = None,
    worker: Worker | None = None,
    base: str = LOCAL,
    patience: float = 0.3,
    grace: float = 0.3,
    **limits: Any,
) -> Iterator[TestClient]:
    """A client of a service over `folder`; its queue is `client.queue`. Its worker starts with the first job."""
    shelf = Shelf(folder)
    queue = Queue(shelf, worker or Worker(opening), Limits(**limits), patience, grace)
    try:
        with TestClient(build_app(queue, abilities, token), base_url=base, follow_redirects=False) as client:
            client.queue = queue  # type: ignore[attr-defined]
            yield client
    finally:
        shelf.close()


def send(client: TestClient, kind: str = "generate", file: Any = None, **form: str) -> Any:
    """The answer to a form of multipart/form-data. file: bytes, or (name, bytes)."""
    field = "image" if kind == "generate" else "video"
    parts: dict[str, Any] = {name: (None, value) for name, value in form.items()}
    if file is not None:
        parts[field] = file if isinstance(file, tuple) else ("film.mp4", file)
    return client.post(f"/jobs/{kind}", files=parts or {"prompt": (None, "")})


def wait(
    client: TestClient, identifier: str, states: tuple[str, ...] = ("done", "failed", "interrupted")
) -> Mapping[str, Any]:
    """The job, once it is in one of the states."""
    for _ in range(6000):
        job = client.get(f"/jobs/{identifier}").json()
        if job["state"] in states:
            return job
        time.sleep(0.01)
    raise AssertionError(f"still {job['state']}")


def everything(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*")}
