"""The page: what it says of good, young, killed and damaged runs, checked with a parser and without a browser."""

import base64
import json
import math
import os
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
import pytest

from tests.report.conftest import T0, write_mp4
from tinyworld.core.errors import MissingFileError, UserError
from tinyworld.core.names import file_name
from tinyworld.report import build_report
from tinyworld.report.previews import embed_previews
from tinyworld.report.read import read_run


class Page(HTMLParser):
    """Visible text, attributes by tag, and the chart data of a page."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.words: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self._within = ""
        self.feed(path.read_text(encoding="utf-8"))
        self.text = re.sub(r"\s+", " ", " ".join(self.words))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._within = tag

    def handle_endtag(self, tag: str) -> None:
        self._within = ""

    def handle_data(self, data: str) -> None:
        if self._within == "script":
            self.scripts.append(data)
        elif self._within != "style":
            self.words.append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]

    @property
    def figures(self) -> list[dict[str, Any]]:
        def refuse(constant: str) -> None:
            raise AssertionError(f"{constant} is not JSON")

        for text in self.scripts:
            if text.startswith("[{"):
                return json.loads(text, parse_constant=refuse)
        return []

    @property
    def charts(self) -> dict[str, dict[str, Any]]:
        places = [place for place in self.all("div") if place.get("data-figure")]
        return {str(p["aria-label"])[7:]: self.figures[int(str(p["data-figure"]))] for p in places}


def built(folder: Path, **options: Any) -> Page:
    path = build_report(folder, **options)
    assert path == folder / "report.html"
    return Page(path)


def journal_lines(folder: Path) -> list[str]:
    return (folder / "journal.jsonl").read_text().splitlines()


def rewrite(folder: Path, lines: list[str]) -> None:
    (folder / "journal.jsonl").write_text("".join(line + "\n" for line in lines))


def test_a_finished_run_is_told_in_full(run_folder: Path) -> None:
    page = built(run_folder)
    for said in (
        "Finished all 300 steps.",
        "taehv_demo",
        "11,315,539",
        "24.31",
        "mean colour 15.40 (+8.91)",
        "mean colour 0.412",
        "From the best validation by PSNR, at step 200. The latest, at step 300, has 24.02.",
        "Starts: 2",
        "checkpoint-150",
        "Skipped steps: 1",
        "walk/clip_tunnel, walk/clip_market",
        "clips/cut.mp4",
        "the file was cut",
        "Checkpoints written: 6",
        "181.0 MB",
        "max_train_steps: 300",
    ):
        assert said in page.text, said


def test_the_page_needs_nothing_from_outside(run_folder: Path) -> None:
    page = built(run_folder)
    loaded = [a.get(key) for _, a in page.tags for key in ("src", "href", "srcset", "poster") if a.get(key)]
    assert loaded and all(str(address).startswith("data:") for address in loaded)
    assert not page.all("link")
    assert sum("plotly.js v" in script for script in page.scripts) == 1


def test_every_chart_is_there_and_valid(run_folder: Path) -> None:
    charts = built(run_folder).charts
    assert list(charts) == [
        *("PSNR", "SSIM", "Flicker", "PSNR by position in the frame group"),
        *("Loss terms", "Gradient norm", "Learning rate", "Latent std"),
        *("Seconds per step", "Memory"),
    ]
    for figure in charts.values():
        go.Figure(figure)  # raises for a property that plotly does not know
    psnr = {trace["name"]: trace for trace in charts["PSNR"]["data"]}
    assert psnr["PSNR"]["y"] == [19.8, 24.31, 24.02]
    assert set(psnr["mean colour"]["y"]) == {15.4}
    assert psnr["best model"]["x"] == [200]
    losses = charts["Loss terms"]
    assert losses["layout"]["yaxis"]["type"] == "log"
    assert {trace["name"] for trace in losses["data"]} == {"total", "reconstruction", "flicker", "latent"}
    assert [shape["x0"] for shape in losses["layout"]["shapes"]] == [150]


def test_it_says_where_the_time_went_and_why_the_run_was_started_again(run_folder: Path) -> None:
    lines = journal_lines(run_folder)
    second = next(place for place, line in enumerate(lines) if '"start"' in line and place)
    killed = {
        "event": "restart",
        "time": T0 + 100,
        "step": 180,
        "cause": "killed by SIGKILL",
        "ended": "killed by SIGKILL",
    }
    killed |= {"exit_code": -9, "pause": 80.0, "lost_seconds": 25.0}
    rewrite(run_folder, [*lines[:second], json.dumps(killed), *lines[second:]])
    page = built(run_folder)
    share = re.search(r"Goodput (\d+\.\d) %: 2 min \d+ s of 4 min 50 s", page.text)
    assert share and 45 < float(share[1]) < 60
    bar = [attributes for attributes in page.all("span") if str(attributes.get("style", "")).startswith("flex")]
    assert [str(part["class"]) for part in bar] == [
        *(
            "part-computing",
            "part-waiting-for-data",
            "part-validation",
            "part-saving",
            "part-start-up",
            "part-lost-work",
        ),
        *("part-down", "part-other"),
    ]
    assert sum(float(str(part["style"]).split()[1]) for part in bar) == pytest.approx(100, abs=0.01)
    assert "Restarts by the supervisor: 1" in page.text and "killed by SIGKILL -9 1 min 20 s 25 s" in page.text
    starts = page.text[page.text.index("Starts: 2") :]
    assert "killed by SIGKILL" in starts and "no end recorded" not in starts


def test_step_time_is_split_into_compute_and_waiting(run_folder: Path) -> None:
    compute, waiting = built(run_folder).charts["Seconds per step"]["data"]
    last = json.loads(journal_lines(run_folder)[-4])
    assert last["step"] == 300 and waiting["x"][-1] == compute["x"][-1] == 300
    assert waiting["y"][-1] == pytest.approx(last["data_seconds"])
    assert compute["y"][-1] == pytest.approx(last["seconds_per_step"] - last["data_seconds"])


def test_clips_stand_worst_first(run_folder: Path) -> None:
    text = built(run_folder).text
    table = text[text.index("the worst first") :]
    assert table.index("clip_meadow") < table.index("clip_harbour") < table.index("clip_tunnel")
    assert "LPIPS" not in table.split("Training")[0], "a column without any number"


def test_a_long_list_of_clips_shows_both_ends(run_folder: Path) -> None:
    path = run_folder / "validation_history.json"
    history = json.loads(path.read_text())
    history[-1]["clips"] = [{"id": f"clip{k:03d}", "psnr": 20 + k / 10, "ssim": 0.5} for k in range(100)]
    path.write_text(json.dumps(history))
    text = built(run_folder).text
    assert "clip000" in text and "clip099" in text and "clip050" not in text
    assert "… 60 clips between …" in text


def test_previews_are_embedded_whole(run_folder: Path) -> None:
    page = built(run_folder)
    videos = page.all("video")
    assert len(videos) == 4
    for video in videos:
        assert {"muted", "loop", "playsinline", "autoplay"} <= video.keys()
        assert (video["width"], video["height"]) == ("192", "64")
    first = str(videos[0]["src"]).removeprefix("data:video/mp4;base64,")
    assert (
        base64.b64decode(first)
        == (run_folder / "previews" / "step-300" / f"{file_name('walk/clip_harbour')}.mp4").read_bytes()
    )
    assert page.text.index("Latest validation, step 300") < page.text.index("Best validation, step 200")
    assert "PSNR 21.47 dB" in page.text
    assert "walk/clip_harbour" in page.text.split("Held-out clips, side by side")[1]


def test_each_preview_stands_with_the_numbers_of_its_own_clip(run_folder: Path) -> None:
    ids = ["a/b", "a_b", "/".join(["deep"] * 80)]
    path = run_folder / "validation_history.json"
    history = json.loads(path.read_text())
    history[-1]["clips"] = [{"id": clip, "psnr": 11.0 * (k + 1), "ssim": 0.5} for k, clip in enumerate(ids)]
    path.write_text(json.dumps(history))
    shutil.rmtree(run_folder / "previews")
    (run_folder / "previews" / "step-300").mkdir(parents=True)
    for clip in ids:
        write_mp4(run_folder / "previews" / "step-300" / f"{file_name(clip)}.mp4")
    (group,), notes = embed_previews(read_run(run_folder))
    assert not notes
    assert {preview.name: preview.metrics["psnr"] for preview in group.previews} == dict(
        zip(ids, (11.0, 22.0, 33.0), strict=True)
    )


def test_previews_stay_within_the_limit_and_say_so(run_folder: Path) -> None:
    sizes = sorted(path.stat().st_size for path in (run_folder / "previews").rglob("*.mp4"))
    page = built(run_folder, embedded_bytes=sum(sizes[:3]) - 1)
    assert len(page.all("video")) == 2
    assert "2 clips are left out" in page.text


def test_a_damaged_preview_is_named_and_left_out(run_folder: Path) -> None:
    path = run_folder / "previews" / "step-300" / f"{file_name('walk/clip_meadow')}.mp4"
    path.write_bytes(path.read_bytes()[:400])
    page = built(run_folder)
    assert len(page.all("video")) == 3
    assert "A clip of step 300 is left out." in page.text and path.name in page.text


def test_a_young_run_with_a_cut_last_line(run_folder: Path) -> None:
    lines = journal_lines(run_folder)
    (run_folder / "journal.jsonl").write_text("\n".join(lines[:40]) + "\n" + lines[40][:50])
    (run_folder / "validation_history.json").unlink()
    shutil.rmtree(run_folder / "previews")
    shutil.rmtree(run_folder / "best_model")
    page = built(run_folder)
    assert "1 of 41 lines of journal.jsonl could not be read and is left out" in page.text
    assert "No validation is recorded yet, so there is no measured quality. The first is due at step 100." in page.text
    assert "No end is recorded. It was killed, or it hangs: its last line, at step 38" in page.text
    assert "There are no preview clips to show." in page.text
    assert "Loss terms" in page.charts and "PSNR" not in page.charts


@pytest.mark.parametrize(
    ("reason", "message", "said"),
    [
        (
            "error",
            "TrainingError: <b>no</b> & nothing",
            "Stopped by an error at step 300: TrainingError: <b>no</b> & nothing",
        ),
        ("signal", "stopped by SIGTERM; saved x", "Interrupted at step 300, and can be resumed: stopped by SIGTERM"),
        ("early_stopping", "", "Stopped early at step 300"),
    ],
)
def test_every_end_is_put_in_words(run_folder: Path, reason: str, message: str, said: str) -> None:
    lines = journal_lines(run_folder)
    stop = json.loads(lines[-1]) | {"reason": reason, "message": message}
    rewrite(run_folder, [*lines[:-1], json.dumps(stop)])
    assert said in built(run_folder).text


def test_a_folder_with_only_a_config_is_a_run(run_folder: Path) -> None:
    for name in ("journal.jsonl", "validation_history.json"):
        (run_folder / name).unlink()
    shutil.rmtree(run_folder / "previews")
    shutil.rmtree(run_folder / "best_model")
    page = built(run_folder)
    assert "There is no journal.jsonl" in page.text
    assert "No training step is recorded yet." in page.text
    assert "No time is recorded yet." in page.text and "Restarts by" not in page.text
    assert page.figures == [] and not any("plotly.js v" in script for script in page.scripts)


def test_damaged_files_are_notes_and_not_ends(run_folder: Path) -> None:
    (run_folder / "validation_history.json").write_text('[{"step": 1')
    (run_folder / "best_model" / "model_info.json").write_text("[]")
    (run_folder / "config.yaml").write_text("a: [1\nb")
    page = built(run_folder)
    assert "validation_history.json is damaged and left out." in page.text
    assert "best_model/model_info.json is damaged and left out." in page.text
    assert "config.yaml is damaged" in page.text
    assert page.charts["PSNR"]["data"][0]["y"] == [19.8, 24.31, 24.02], "the journal has the means too"
    assert "The numbers of single clips are not recorded." in page.text


def test_a_missing_config_is_said(run_folder: Path) -> None:
    (run_folder / "config.yaml").unlink()
    assert "config.yaml is missing" in built(run_folder).text


def test_values_that_are_not_numbers_become_gaps(run_folder: Path) -> None:
    lines = journal_lines(run_folder)
    records = [json.loads(line) for line in lines]
    for record in records:
        if record["event"] == "step" and record["step"] % 3 == 0:
            record["losses"] = {"total": math.nan, "reconstruction": None, "flicker": -1.0}
            record |= {"gradient_norm": math.inf, "seconds_per_step": None, "latent_std": "text", "memory_mb": None}
    rewrite(run_folder, [json.dumps(record) for record in records])
    history = json.loads((run_folder / "validation_history.json").read_text())
    history[0] |= {"flicker": math.nan, "psnr_by_position": [None, math.nan, 3.0, 4.0]}
    (run_folder / "validation_history.json").write_text(json.dumps(history))
    charts = built(run_folder).charts
    assert charts["Flicker"]["data"][0]["y"][0] is None
    assert charts["PSNR by position in the frame group"]["data"][0]["y"][:2] == [None, None]
    assert None in charts["Loss terms"]["data"][0]["y"]


def test_odd_records_do_not_break_the_page(run_folder: Path) -> None:
    odd = [
        {"event": "step", "step": 301, "losses": 3, "time": None},
        {"event": "validation", "step": 301, "metrics": None, "baseline": [], "best": 1},
        {"event": "checkpoint", "step": 301},
        {"event": "skip", "step": 301, "ids": "abc"},
        {"event": "quarantine", "step": 301},
        {"event": "start", "step": 301, "parameters": "many", "time": "now"},
        {"event": "stop", "step": 301, "reason": None},
        {"event": "unknown", "step": 301},
    ]
    broken = ["", "[1]", '{"event": 3, "step": 1}', '{"event": "step"}', "\x00\x01"]
    rewrite(run_folder, [*journal_lines(run_folder), *map(json.dumps, odd), *broken])
    (run_folder / "validation_history.json").write_text(
        '[3, {"step": null}, {"step": 7}, {"step": 8, "clips": [1, {}]}]'
    )
    text = built(run_folder).text
    assert "4 of " in text and "lines of journal.jsonl could not be read and are left out" in text


def test_text_from_the_run_cannot_become_markup(run_folder: Path) -> None:
    evil = "</script><script>alert(1)</script><img src=x onerror=alert(1)>"
    lines = [json.loads(line) for line in journal_lines(run_folder)]
    lines[0]["recipe"] = lines[0]["device"] = evil
    lines[1] |= {"path": evil, "reason": evil}
    for line in lines:
        if line["event"] == "step":
            line["losses"] = {evil: 1.0, **line["losses"]}
            line[evil] = 1.0
    rewrite(run_folder, [json.dumps(line) for line in lines])
    history = json.loads((run_folder / "validation_history.json").read_text())
    history[-1]["clips"][0]["id"] = evil
    (run_folder / "validation_history.json").write_text(json.dumps(history))
    (run_folder / "config.yaml").write_text(f"name: '{evil}'\n")
    page = built(run_folder)
    assert not page.all("img")
    assert len(page.all("script")) == 4
    assert any(trace["name"] == evil for trace in page.charts["Loss terms"]["data"])


def test_a_folder_that_is_no_run_is_refused_with_the_runs_in_it(run_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match=rf"not a run folder.*{run_folder.name}"):
        build_report(tmp_path)
    with pytest.raises(UserError, match="No run folder at"):
        build_report(tmp_path / "nowhere")
    with pytest.raises(UserError, match="No run folder at"):
        build_report(run_folder / "journal.jsonl")
    assert not (tmp_path / "report.html").exists()


def test_building_twice_replaces_the_page(run_folder: Path) -> None:
    build_report(run_folder)
    lines = journal_lines(run_folder)
    rewrite(run_folder, lines[:-1])
    assert "Finished" not in built(run_folder).text
    assert not list(run_folder.glob(".staging*"))


def test_charts_are_drawn_in_a_browser(run_folder: Path, tmp_path: Path) -> None:
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("no chromium on this machine: the page's content is checked by the other tests")
    page = build_report(run_folder)
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"]
    options += [
        "--disable-background-networking",
        "--disable-component-update",
        f"--user-data-dir={tmp_path / 'profile'}",
    ]
    command = [browser, *options, "--virtual-time-budget=10000", "--dump-dom", page.resolve().as_uri()]
    environment = {**os.environ, "HOME": str(tmp_path)}
    dom = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120, env=environment).stdout
    assert len(re.findall(r'class="plot[^"]*js-plotly-plot', dom)) == 10
