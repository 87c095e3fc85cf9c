"""The notebook: it runs, and what is stored of its last run is clean."""

import re
from pathlib import Path
from typing import Any

import pytest

from tests.examples.conftest import EXAMPLES

FILE = EXAMPLES / "tinyworld_story.ipynb"
WHY = "needs pip install 'tinyworld[notebook]'"


def read(path: Path = FILE) -> Any:
    nbformat = pytest.importorskip("nbformat", reason=WHY)
    notebook = nbformat.read(path, 4)
    nbformat.validate(notebook)
    return notebook


def code_cells(notebook: Any) -> list[Any]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def texts(notebook: Any) -> str:
    """Everything that the outputs say in words."""
    outputs = [output for cell in code_cells(notebook) for output in cell.outputs]
    assert not [output for output in outputs if output.output_type == "error" or output.get("name") == "stderr"]
    streams = [output.text for output in outputs if output.output_type == "stream"]
    plain = [output.data.get("text/plain", "") for output in outputs if "data" in output]
    return "\n".join([*streams, *plain])


def pictures(notebook: Any) -> int:
    outputs = [output for cell in code_cells(notebook) for output in cell.outputs]
    return sum("image/png" in output.get("data", {}) for output in outputs)


def test_stored_outputs_are_of_one_clean_run() -> None:
    notebook = read()
    assert [cell.execution_count for cell in code_cells(notebook)] == list(range(1, len(code_cells(notebook)) + 1))
    said = texts(notebook)
    assert not re.search(r"(?<![\w.])[/\\]\w+[/\\]\w|[A-Z]:\\|Warning|localhost", said), said
    assert pictures(notebook) == 6
    assert FILE.stat().st_size < 2_000_000
    assert not [cell for cell in notebook.cells if "execution" in cell.metadata]  # times of the run


def test_stored_outputs_show_that_it_learned_and_that_streaming_is_exact() -> None:
    said = texts(read())
    untrained, trained = map(float, re.findall(r"PSNR: (\S+) dB untrained, (\S+) dB trained", said)[0])
    (baseline,) = map(float, re.findall(r"mean colour alone gives (\S+) dB", said))
    assert trained > untrained > baseline
    (difference,) = map(float, re.findall(r"difference of a pixel: (\S+) of 1", said))
    assert difference < 1e-4


@pytest.mark.slow
def test_it_runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    nbclient = pytest.importorskip("nbclient", reason=WHY)
    pytest.importorskip("ipykernel", reason=WHY)
    monkeypatch.setenv("TINYWORLD_STORY_SHORT", "1")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    notebook = read()
    for cell in code_cells(notebook):
        cell.outputs, cell.execution_count = [], None
    resources = {"metadata": {"path": str(tmp_path)}}
    nbclient.NotebookClient(notebook, timeout=600, kernel_name="python3", resources=resources).execute()
    said = texts(notebook)
    assert pictures(notebook) == 6
    assert "2 rooms trained on, 1 held out, 8 steps" in said
    assert "frames that come back after each frame that goes in: 0 0 0 1 0 0 0 4 0 0 0 4 0 and at the end 4" in said
    assert float(re.findall(r"difference of a pixel: (\S+) of 1", said)[0]) < 1e-4
