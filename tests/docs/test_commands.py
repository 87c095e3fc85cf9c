"""Every command and every Python block of README and docs/ is executed, in a sandbox, in a small form.

A command that no rule fits fails and says what to add. `tests/docs/rules.py` has the tables.
"""

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from tests.docs import rules, running
from tests.docs.pages import ROOT, Block, Command, blocks, commands, pages
from tests.docs.sandbox import copy_of, make_sandbox, narrow_published
from tinyworld.config.load import load_recipe
from tinyworld.config.schema import FantasyRecipe, TaehvRecipe

ALL = [command for page in pages() for command in commands(page)]
LEFT_OUT = {command.place: reason for command in ALL if (reason := running.reason_not_run(command.text))}


def _unique() -> list[Command]:
    """One of those that mean the same."""
    found: dict[str, Command] = {}
    for command in ALL:
        if not running.reason_not_run(command.text):
            found.setdefault(running.meant(command), command)
    return list(found.values())


@pytest.fixture(scope="session")
def sandbox(tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    return make_sandbox(shared / "docs_sandbox" / "box")


@pytest.fixture
def here(sandbox: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the sandbox, as the working directory."""
    folder = copy_of(sandbox, tmp_path / "here")
    monkeypatch.chdir(folder)
    monkeypatch.setenv("TQDM_DISABLE", "1")
    return folder


@pytest.mark.parametrize("command", _unique(), ids=lambda command: command.place)
def test_command(command: Command, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _save_recipes(command.page)
    running.run(running.meant(command), monkeypatch)


def _save_recipes(page: str) -> None:
    """YAML blocks that begin with a comment `# NAME.yaml` are the files that the page's commands name."""
    for block in blocks(page):
        named = re.match(r"#\s*(\S+\.ya?ml)\b", block.text)
        if named and block.language in ("yaml", "yml"):
            Path(named[1]).parent.mkdir(parents=True, exist_ok=True)
            Path(named[1]).write_text(block.text)


BENCHMARKS = sorted(path.stem for path in (ROOT / "benchmarks").glob("*.py") if "def main(" in path.read_text())


@pytest.mark.parametrize("name", BENCHMARKS)
def test_benchmark_explains_itself(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every benchmark imports and has a parser, also those that no page shows a command of."""
    with pytest.raises(SystemExit) as end:
        running.benchmark(name, ["--help"], monkeypatch)
    assert not end.value.code


PYTHON = {
    page: found
    for page in pages()
    if (found := [block for block in blocks(page) if block.language in ("python", "py")])
}


@pytest.mark.parametrize("page", PYTHON)
def test_python(page: str, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The Python blocks of a page, one after the other, with one set of names."""
    names: dict[str, object] = {"__name__": "documentation"}
    if page != "README.md":
        narrow_published(monkeypatch)
    exec(rules.PYTHON_NAMES.get(page, ""), names)
    for block in PYTHON[page]:
        text = block.text
        for pattern, replacement in rules.PYTHON_SMALL:
            text = re.sub(pattern, replacement, text)
        code = compile("\n" * (block.line - 1) + text, ROOT / page, "exec")
        if not any(word in text for word, _ in rules.ONLY_COMPILED):
            with torch.random.fork_rng(devices=[]):
                exec(code, names)


YAML = [block for page in pages() for block in blocks(page) if block.language in ("yaml", "yml")]
RECIPE_KEYS = {"extends", *TaehvRecipe.model_fields, *FantasyRecipe.model_fields}


@pytest.mark.parametrize("block", YAML, ids=lambda block: block.place)
def test_yaml(block: Block, here: Path) -> None:
    """It is YAML; and where it is a recipe, or a part of one, the loader takes it."""
    content = yaml.safe_load(block.text)
    if isinstance(content, dict) and set(content) <= RECIPE_KEYS:
        lead = "" if {"extends", "task"} & set(content) else "extends: taehv_stages\n"
        Path("own.yaml").write_text(lead + block.text)
        recipe = load_recipe("own.yaml", complete=False)
        for section in set(content) - {"extends", "task", "name"}:
            assert section in type(recipe).model_fields
    else:
        assert content is not None


def test_json() -> None:
    for block in (block for page in pages() for block in blocks(page) if block.language == "json"):
        assert json.loads(block.text), block.place


def test_forms_of_lists(here: Path) -> None:
    """The forms of annotation files and of metadata.json that data.md shows are read."""
    from tinyworld.data.manifest import list_videos
    from tinyworld.data.worlds.layout import list_worlds

    shown = [block.text for block in blocks("docs/data.md") if block.text.startswith("[{")]
    assert len(shown) == 2
    Path("sub").mkdir()
    for name in ("a.mp4", "sub/b.mkv", "sub/b.mp4"):
        Path(name).write_bytes(Path("film.mp4").read_bytes())
    forms = [_example(line) for line in shown[0].splitlines()[:4]]
    forms[2]["videos"] = forms[0]
    for form in forms:
        Path("list.json").write_text(json.dumps(form))
        assert {entry.path.name for entry in list_videos(Path.cwd(), Path("list.json"))} <= {"a.mp4", "b.mkv"}
    for line in shown[1].splitlines():
        form = _example(line)
        samples = form if isinstance(form, list) else form["samples"]
        for key, place in (("video_path", "video.mp4"), ("depth_dir", "depth"), ("camera_file", "camera_params.txt")):
            if key in samples[0]:
                samples[0][key] = f"sample_001/{place}"
        samples[0].pop("points_dir", None)
        (here / "D" / "list.json").write_text(json.dumps(form))
        (world,) = list_worlds(here / "D", here / "D" / "list.json")
        assert world.video.is_file()


def _example(line: str) -> Any:
    """A line of JSON with its ellipses taken out, and what is said beside it."""
    text = re.split(r"\s{3,}", line)[0]
    return json.loads(re.sub(r",?\s*…\s*", "", text.replace('"…"', '"x"')))


def test_what_is_left_out_is_little_and_said() -> None:
    """A new kind of command is executed, or has a reason in a table; no table is about a page that is gone."""
    assert len(ALL) > 150 and len(LEFT_OUT) < len(ALL) / 5
    assert all(reason for _, reason in (*rules.NOT_RUN, *rules.ONLY_PARSED, *rules.ONLY_COMPILED))
    assert {*rules.SUBSTITUTIONS, *rules.PYTHON_NAMES} - {"*"} <= set(pages())
