"""A headless Chromium for tests of pages: what they look like, and what state they say they are in."""

import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

CHROMIUM = next(
    (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None
)
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium (apt-get install chromium)")
FLAGS = (
    *("--headless", "--no-sandbox", "--no-first-run", "--hide-scrollbars"),
    *("--disable-quic", "--disable-background-networking", "--disable-component-update", "--disable-sync"),
    *("--use-angle=swiftshader", "--enable-unsafe-swiftshader"),
)


def seen(address: str, folder: Path, width: int = 1000, height: int = 800) -> np.ndarray:
    """A screenshot, uint8 H W 3, after the page had ten seconds of its own clock."""
    picture = folder / "seen.png"
    _run(folder, width, height, f"--screenshot={picture}", address)
    with Image.open(picture) as image:
        return np.asarray(image.convert("RGB"))


def document(address: str, folder: Path) -> str:
    """The document's markup after the page's scripts ran."""
    return _run(folder, 1000, 800, "--dump-dom", address)


def attribute(markup: str, name: str) -> str | None:
    """The value of the viewer's attribute."""
    found = re.search(rf'<section class="viewer"[^>]* {name}="([^"]*)"', markup)
    return found.group(1) if found else None


def _run(folder: Path, width: int, height: int, *arguments: str) -> str:
    assert CHROMIUM is not None
    own = [f"--user-data-dir={folder / 'chromium'}", f"--window-size={width},{height}", "--virtual-time-budget=10000"]
    done = subprocess.run([CHROMIUM, *FLAGS, *own, *arguments], capture_output=True, text=True, timeout=240, check=True)
    return done.stdout
