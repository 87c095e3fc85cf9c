"""A headless Chromium for tests of pages: what they look like, and what state they say they are in."""

import json
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
    return _process(folder, width, height, *arguments).stdout


def _process(folder: Path, width: int, height: int, *arguments: str) -> "subprocess.CompletedProcess[str]":
    assert CHROMIUM is not None
    own = [f"--user-data-dir={folder / 'chromium'}", f"--window-size={width},{height}", "--virtual-time-budget=10000"]
    return subprocess.run([CHROMIUM, *FLAGS, *own, *arguments], capture_output=True, text=True, timeout=240, check=True)


def on_a_phone(
    page: Path, folder: Path, width: int = 390, height: int = 900, picture: Path | None = None
) -> dict[str, str]:
    """What a page is `width` pixels wide, narrower than Chromium's own windows: inner, the width it takes (of its scrolled
    content), plots and curves that were drawn, and console, everything that was said there. picture: for a screenshot.

    The page stands in a frame of another one and is asked after five seconds of its clock.
    """
    text = json.dumps(page.read_text(encoding="utf-8")).replace("<", "\\u003c")
    wrapper = folder / "phone.html"
    wrapper.write_text(_PHONE.replace("WIDTH", str(width)).replace("HEIGHT", str(height)).replace("TEXT", text))
    said = ["--force-prefers-reduced-motion", "--enable-logging=stderr", "--v=0", "--disable-gpu"]
    if picture is not None:
        _run(folder, 500, height, f"--screenshot={picture}", *said, wrapper.as_uri())
    done = _process(folder, 500, 900, "--dump-dom", *said, wrapper.as_uri())
    found = dict(
        re.findall(r' data-(\w+)="([^"]*)"', done.stdout[: done.stdout.index(">", done.stdout.index("<html"))])
    )
    return found | {"console": "\n".join(line for line in done.stderr.splitlines() if "CONSOLE" in line)}


_PHONE = """<!doctype html><html><body style="margin:0"><script>
const frame = document.createElement("iframe");
Object.assign(frame, { width: "WIDTH", height: "HEIGHT", srcdoc: TEXT });
frame.style.border = 0;
document.body.append(frame);
setTimeout(() => {
  const inner = frame.contentDocument, told = document.documentElement.dataset;
  told.inner = frame.contentWindow.innerWidth;
  told.taken = inner.documentElement.scrollWidth;
  told.plots = inner.querySelectorAll(".plot.js-plotly-plot").length;
  told.curves = inner.querySelectorAll(".plot .scatterlayer .trace").length;
}, 5000);
</script></body></html>"""
