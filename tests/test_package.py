"""What is handed out: wheel and source archive, changes, citation, container."""

import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest
import yaml

from tinyworld.core.version import __version__

ROOT = Path(__file__).parents[1]
PACKAGED = (".py", ".yaml", ".j2", "py.typed")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The archives, built from a copy, so that nothing is left in the checkout."""
    copy, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("dist")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    shutil.copytree(ROOT / "src", copy / "src", ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), str(copy)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return out


def sources() -> set[str]:
    """Every file that the package is made of, as it is called inside an archive."""
    files = (path.relative_to(ROOT / "src") for path in (ROOT / "src" / "tinyworld").rglob("*") if path.is_file())
    return {file.as_posix() for file in files if file.name.endswith(PACKAGED)}


def test_both_archives_hold_the_whole_package(built: Path) -> None:
    (wheel,), (archive,) = built.glob("*.whl"), built.glob("*.tar.gz")
    assert wheel.name == f"tinyworld-{__version__}-py3-none-any.whl"
    with zipfile.ZipFile(wheel) as opened:
        names = set(opened.namelist())
    assert sources() <= names
    assert any(name.endswith("licenses/LICENSE") for name in names)
    with tarfile.open(archive) as opened_tar:
        names = {name.partition("/src/")[2] for name in opened_tar.getnames()}
    assert sources() <= names


def test_an_installed_wheel_has_its_recipes_and_commands(built: Path, tmp_path: Path) -> None:
    (wheel,) = built.glob("*.whl")
    with zipfile.ZipFile(wheel) as opened:
        opened.extractall(tmp_path / "site")
    command = [sys.executable, "-P", "-c", (
        "import sys; sys.path.insert(0, 'site'); import tinyworld; assert tinyworld.__file__.startswith(sys.argv[1]); "
        "from tinyworld.cli.main import main; sys.exit(main(['train', 'taehv_demo', '--print_config']))"
    ), str(tmp_path)]  # fmt: skip
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and "name: taehv_demo" in done.stdout, done.stderr


def test_the_module_runs_as_the_command() -> None:
    done = subprocess.run([sys.executable, "-m", "tinyworld", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == f"tinyworld {__version__}"


def test_changes_and_citation_name_this_version() -> None:
    versions = re.findall(r"^## (\d+\.\d+\.\d+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert versions[0] == __version__
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["cff-version"] == "1.2.0" and str(citation["version"]) == __version__
    assert {"message", "title", "authors", "license"} <= citation.keys()
    assert all(entry["title"] and entry["authors"] and entry["type"] for entry in citation["references"])


def test_a_linter_accepts_the_container_file() -> None:
    hadolint = Path(sys.executable).with_name("hadolint")
    if not hadolint.exists():
        pytest.skip("hadolint is not installed")
    done = subprocess.run([str(hadolint), str(ROOT / "Dockerfile")], capture_output=True, text=True, check=False)
    assert done.returncode == 0 and not done.stdout, done.stdout


def test_what_the_container_copies_is_let_through() -> None:
    copied = re.findall(r"^COPY (.+) \S+$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    let_through = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert {name for line in copied for name in line.split()} == let_through
    assert all((ROOT / name).exists() for name in let_through)


def test_every_extra_that_the_container_installs_exists() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    (wanted,) = re.findall(r"'\.\[(.+)\]'", (ROOT / "Dockerfile").read_text())
    assert set(wanted.split(",")) <= extras.keys()
