"""The documentation as a site: it builds without a warning, works without a network, and its example runs."""

import itertools
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

from tinyworld.core.errors import FramePlanError
from tinyworld.core.frames import training_plan
from tinyworld.core.variants import VARIANTS
from tinyworld.models.teachers.facts import SUPPORTED

pytest.importorskip("material", reason="the site needs pip install 'tinyworld[docs]'")
pytest.importorskip("mkdocstrings", reason="the site needs pip install 'tinyworld[docs]'")

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
OTHER_SERVERS = re.compile(r"^\s*(https?:)?//", re.IGNORECASE)
LOADED = {"script": "src", "img": "src", "iframe": "src", "source": "src", "video": "src", "link": "href"}
"""Elements whose address is fetched when a page is opened, and the attribute that holds it."""


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built site. --strict: a broken link or anchor, a page outside the navigation, an object that is not there."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    quiet = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=quiet, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


class Addresses(HTMLParser):
    """Every address that a page loads something from, and the classes of its elements."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.loaded: list[str] = []
        self.classes: set[str] = set()
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        self.classes.update(values.get("class", "").split())
        if tag in LOADED and LOADED[tag] in values and values.get("rel") != "canonical":
            self.loaded.append(values[LOADED[tag]])


@pytest.mark.slow
def test_every_page_is_in_the_site(site: Path) -> None:
    pages = {path.relative_to(DOCS).with_suffix(".html") for path in DOCS.rglob("*.md")}
    built = {path.relative_to(site) for path in site.rglob("*.html")} - {Path("404.html")}
    assert pages == built
    index = (site / "index.html").read_text(encoding="utf-8")
    assert [page for page in sorted(pages) if f'href="{page}"' not in index and page.name != "index.html"] == []


@pytest.mark.slow
def test_no_page_loads_anything_from_another_server(site: Path) -> None:
    for path in site.rglob("*.html"):
        found = Addresses(path.read_text(encoding="utf-8"))
        assert found.loaded, path
        assert [address for address in found.loaded if OTHER_SERVERS.match(address)] == [], path
        assert "mermaid" not in found.classes, f"{path}: the theme fetches what draws such diagrams from another server"
    for path in site.rglob("*.css"):
        used = re.findall(r"url\(\s*[\"']?([^\"')]+)|@import\s+[\"']([^\"']+)", path.read_text(encoding="utf-8"))
        assert [address for pair in used for address in pair if OTHER_SERVERS.match(address)] == [], path


@pytest.mark.slow
def test_the_search_needs_no_server(site: Path) -> None:
    """Opened from a folder, the search takes its index from a script and runs in a frame instead of a worker."""
    assert (site / "search" / "search_index.js").read_text(encoding="utf-8").startswith("var __index = {")
    loaded = Addresses((site / "index.html").read_text(encoding="utf-8")).loaded
    assert "javascripts/iframe-worker.js" in loaded and (site / "javascripts" / "iframe-worker.js").is_file()


@pytest.mark.slow
def test_the_reference_shows_signatures_and_docstrings(site: Path) -> None:
    page = (site / "api" / "taehv.html").read_text(encoding="utf-8")
    assert 'id="tinyworld.models.taehv.model.Taehv.encode"' in page
    assert "Height and width must be multiples of" in page
    assert "Cameras" in (site / "api" / "geometry.html").read_text(encoding="utf-8")


def rows_of(page: str, header: str) -> list[list[str]]:
    """The cells of the table below the line that begins with `header`, without back ticks."""
    lines = (DOCS / page).read_text(encoding="utf-8").split("\n")
    start = next(number for number, line in enumerate(lines) if line.startswith(header)) + 2
    table = itertools.takewhile(lambda line: line.startswith("|"), lines[start:])
    return [[cell.strip().replace("`", "") for cell in line.strip("|").split("|")] for line in table]


def test_the_tables_of_variants_and_teachers_are_those_of_the_code() -> None:
    sizes = {
        name: [str(spec.latent_channels), f"{spec.t_down}x", f"{spec.spatial_compression}x", spec.flavour]
        for name, spec in VARIANTS.items()
    }
    assert {row[0]: row[1:] for row in rows_of("teachers.md", "| variant | latent channels")} == sizes
    told = rows_of("teachers.md", "| latents of | teacher")
    assert {row[1].split(",")[0] for row in told} == set(SUPPORTED)
    for _, name, variants, default, others in told:
        family = SUPPORTED[name.split(",")[0]]
        assert family.convention == default and set(family.conventions) == {default, others}
        assert set(variants.split(", ")) <= set(VARIANTS)


def test_the_table_of_frame_counts_is_that_of_the_code() -> None:
    columns = [VARIANTS[name] for name in ("taew2_1", "taecvx", "taeltx_2")]
    for count, *cells in rows_of("teachers.md", "| `n_frames` | plain 4x"):
        for cell, spec in zip(cells, columns, strict=True):
            if cell == "–":
                with pytest.raises(FramePlanError):
                    training_plan(int(count), spec)
            else:
                plan = training_plan(int(count), spec)
                assert cell == f"{plan.latent_frames}, {plan.decoded_frames}"


@pytest.mark.slow
def test_the_example_of_a_new_model_trains(tmp_path: Path) -> None:
    """docs/add-a-model.md: its Python blocks, one after the other, are a program; its model beats its baseline."""
    text = (DOCS / "add-a-model.md").read_text(encoding="utf-8")
    program = "\n\n".join(re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL))
    (tmp_path / "program.py").write_text(program, encoding="utf-8")
    done = subprocess.run([sys.executable, "program.py"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    told = re.fullmatch(r"step (\d+): ([\d.]+) dB; as given: ([\d.]+) dB", done.stdout.strip().splitlines()[-1])
    assert told, done.stdout
    step, own, given = told.groups()
    assert step == "200" and float(own) > float(given) + 3
    assert (tmp_path / "output" / "squares" / "best_model" / "model.safetensors").is_file()
