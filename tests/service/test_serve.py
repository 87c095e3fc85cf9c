"""The command: mistakes before anything is opened, and a service over a real network that ends in order."""

import argparse
import os
import signal
import socket
import threading
import time
from pathlib import Path

import pytest

from tests.service import fakes
from tinyworld.cli.commands import serve
from tinyworld.cli.dispatch import exit_code
from tinyworld.core.errors import EXIT_USER_ERROR
from tinyworld.service import work

httpx2 = pytest.importorskip("httpx2", reason="the service's tests need httpx2")
for needed in serve.NEEDED:
    pytest.importorskip(needed, reason="the service needs the extra serve: pip install 'tinyworld[serve]'")


def command(*argv: str | Path) -> int:
    parser = argparse.ArgumentParser(allow_abbrev=False)
    serve.add_parser(parser.add_subparsers(required=True))
    options = parser.parse_args(["serve", *(str(part) for part in argv)])
    return exit_code(lambda: options.run(options))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "--model to reconstruct videos, --base"),
        (["--model=m", "--weights=w"], "--weights has no effect without --base"),
        (["--model=m", "--host=0.0.0.0"], "--host 0.0.0.0 lets other machines reach this service"),
        (["--model=m", "--host=0.0.0.0", "--token=short"], "--token must be 16"),
        (["--model=m", "--max_queue=0"], "--max_queue 0 must be above 0"),
        (["--model=m", "--host=192.0.2.1"], "lets other machines"),
        (["--model=m", "--port=70000"], "--port 70000"),
    ],
)
def test_mistakes(arguments: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command("--folder", tmp_path / "jobs", *arguments) == EXIT_USER_ERROR
    assert said in capsys.readouterr().err


def test_a_port_that_is_taken(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert command("--folder", tmp_path, "--model=m", f"--port={taken.getsockname()[1]}") == EXIT_USER_ERROR
    assert "in use" in capsys.readouterr().err


def test_without_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(serve, "NEEDED", ("json", "no_such_package"))
    assert command("--folder", tmp_path, "--model=m") == EXIT_USER_ERROR
    assert "(no_such_package): pip install 'tinyworld[serve]'" in capsys.readouterr().err


def test_a_service_ends_in_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(work, "open_models", fakes.opening)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    seen: dict[str, object] = {}

    def use() -> None:
        try:
            with httpx2.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False) as client:
                for _ in range(1000):
                    try:
                        client.get("/health")
                        break
                    except httpx2.TransportError:
                        time.sleep(0.02)
                job = client.post("/jobs/generate", files={"prompt": (None, "fast")}).json()
                while client.get(f"/jobs/{job['id']}").json()["state"] != "done":
                    time.sleep(0.02)
                seen["file"] = client.get(f"/jobs/{job['id']}/files/video.mp4").content
                seen["large"] = client.post("/jobs/lift", files={"video": ("a.mp4", bytes(2**21))}).status_code
        finally:
            os.kill(os.getpid(), signal.SIGTERM)

    user = threading.Thread(target=use)
    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(serve, "OPEN_SECONDS", 1)
    signal.signal(
        signal.SIGTERM, lambda number, frame: None
    )  # if the service never began, the test is to fail, not to die
    try:
        user.start()
        assert command("--folder", tmp_path / "jobs", "--model=m", f"--port={port}", "--max_upload_mb=1") == 0
        user.join()
    finally:
        signal.signal(signal.SIGTERM, before)
    assert seen == {"file": b"0123456789", "large": 413}
    assert f"http://127.0.0.1:{port} (Ctrl-C ends the service)" in capsys.readouterr().out
