"""The page that compares runs: what it says is what the runs wrote, and it gives no verdict that the numbers do not carry."""

import base64
import html
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from tests.report.browser import document, needs_chromium, on_a_phone
from tests.report.conftest import CLIPS, write_mp4, write_run
from tests.report.test_report_page import Page
from tests.report.test_scene_page import shown
from tinyworld.core.errors import ConfigError, MissingFileError
from tinyworld.core.names import file_name
from tinyworld.media.colour import ANCHORS
from tinyworld.media.read import iter_frames
from tinyworld.media.write import write_video
from tinyworld.report import build_comparison
from tinyworld.report.compare_clips import embed_clips
from tinyworld.report.compare_clouds import shared_scenes
from tinyworld.report.compare_curves import STRETCHES, chart, machine_charts
from tinyworld.report.compare_events import events, timeline
from tinyworld.report.compare_maps import heat
from tinyworld.report.compare_quality import verdict
from tinyworld.report.compare_settings import differences
from tinyworld.report.compare_shares import loss_shares
from tinyworld.report.compared import Entry, read_together
from tinyworld.report.metrics import AUTOENCODER
from tinyworld.report.scene_file import write_scene_file

PSNR = AUTOENCODER[0]


def other(folder: Path, better: float = 0.0, **settings: Any) -> Path:
    """A run like the usual one, `better` dB better in each clip; settings: section__key."""
    write_run(folder)
    path = folder / "validation_history.json"
    history = json.loads(path.read_text())
    for entry in history:
        entry["psnr"] += better
        for clip in entry["clips"]:
            clip["psnr"] += better
    path.write_text(json.dumps(history))
    config = yaml.safe_load((folder / "config.yaml").read_text())
    for key, value in settings.items():
        section, _, name = key.partition("__")
        config.setdefault(section, {})[name] = value
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    return folder


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    return write_run(tmp_path / "runs" / "plain"), other(tmp_path / "runs" / "wide", 12, optimizer__learning_rate=6e-3)


def drawn(page: Page) -> dict[str, Any]:
    """What the page's script draws."""
    return next(json.loads(text)[0] for text in page.scripts if text.startswith('[{"runs"'))


def test_runs_stand_beside_each_other_with_one_name_each(pair: tuple[Path, Path]) -> None:
    path = build_comparison(pair)
    assert path == pair[0].parent / "report-compare.html"
    page = Page(path)
    for said in (
        "2 runs compared",
        "A plain",
        "B wide",
        "PSNR 24.31 dB",
        "PSNR 36.31 dB",
        "Best model step 200",
        "optimizer.learning_rate",
    ):
        assert said in page.text, said
    assert "max_train_steps" not in page.text, "a key that is the same"
    assert "mean colour: 15.40" in page.text
    badges = {(tag["class"], place) for place, tag in enumerate(page.all("span")) if "badge" in str(tag.get("class"))}
    assert {name for name, _ in badges} == {"badge run-0", "badge run-1"}


def test_the_page_needs_nothing_from_outside_and_says_its_size(pair: tuple[Path, Path]) -> None:
    path = build_comparison(pair)
    page = Page(path)
    loaded = [a.get(key) for _, a in page.tags for key in ("src", "href", "srcset", "poster") if a.get(key)]
    assert loaded and all(str(address).startswith("data:") for address in loaded)
    assert "default-src 'none'" in str([meta.get("content") for meta in page.all("meta")])
    assert sum("plotly.js v" in script for script in page.scripts) == 1
    told = re.search(r"one file of ([\d.]+) MB", page.text)
    assert told and float(told[1]) == pytest.approx(path.stat().st_size / 1e6, abs=0.1)


def test_curves_are_the_runs_own_numbers(pair: tuple[Path, Path]) -> None:
    found = drawn(Page(build_comparison(pair)))
    charts = {one["title"]: one for one in found["charts"]}
    assert {"PSNR", "Total loss", "Gradient norm", "Throughput", "Memory", "reconstruction", "Latent std"} <= set(
        charts
    )
    assert all(one["unit"] for one in found["charts"])
    records = {
        r["step"]: r for line in (pair[0] / "journal.jsonl").open() if (r := json.loads(line))["event"] == "step"
    }
    steps = found["axes"][0]["steps"]
    assert steps == sorted(records) and found["axes"][0]["clips"] == [4 * step for step in steps]
    for curve in charts["Total loss"]["curves"]:
        assert curve["y"] == pytest.approx([records[step]["losses"]["total"] for step in steps], rel=1e-5)
    assert [curve["run"] for curve in charts["PSNR"]["curves"]] == [0, 1]
    best = charts["PSNR"]["curves"][1]
    assert best["y"] == pytest.approx([31.8, 36.31, 36.02]) and best["baseline"] == [15.4] * 3
    assert all(low < value < high for low, value, high in zip(best["low"], best["y"], best["high"], strict=True))


def test_throughput_is_clips_over_seconds(pair: tuple[Path, Path]) -> None:
    entries = read_together(pair)
    (found,) = (one for one in machine_charts(entries) if one["title"] == "Throughput")
    record = entries[0].run.steps[7]
    assert found["curves"][0]["y"][7] == pytest.approx(4 / record["seconds_per_step"], rel=1e-5)


def test_a_long_curve_keeps_its_mean_and_its_spikes(pair: tuple[Path, Path]) -> None:
    values = [float(i % 7) for i in range(5 * STRETCHES + 3)]
    values[1234] = 1000.0
    (curve,) = chart(read_together(pair)[:1], "t", "c", "u", lambda _: values)["curves"]
    size = 6
    assert len(curve["y"]) <= STRETCHES and max(curve["high"]) == 1000.0 and min(curve["low"]) == 0.0
    assert curve["y"][10] == pytest.approx(sum(values[10 * size : 11 * size]) / size, rel=1e-5)


@pytest.mark.parametrize(
    ("better", "settings", "places", "why"),
    [
        (12.0, {}, (1,), "its interval overlaps no other"),
        (-12.0, {}, (0,), "its interval overlaps no other"),
        (0.4, {}, (), "no verdict: the intervals overlap"),
        (12.0, {"validation__validation_height": 256}, (), "not comparable: height A null, B 256"),
        (12.0, {"data__data_root": "elsewhere"}, (), "not comparable: data A null, B elsewhere"),
    ],
)
def test_a_verdict_only_where_intervals_are_apart(
    tmp_path: Path, better: float, settings: dict[str, Any], places: tuple[int, ...], why: str
) -> None:
    entries = read_together([write_run(tmp_path / "a"), other(tmp_path / "b", better, **settings)])
    found = verdict(entries, PSNR)
    assert (found.places, found.why) == (places, why)
    if better == 0.4:
        assert found.paired == "B − A: +0.400 dB [+0.400, +0.400], better in 6 of 6"


def test_no_verdict_over_few_or_other_clips(pair: tuple[Path, Path]) -> None:
    path = pair[1] / "validation_history.json"
    path.write_text(path.read_text().replace("walk/clip_meadow", "x").replace("walk/clip_tunnel", "y"))
    assert verdict(read_together(pair), PSNR).why == "4 clips in common: too few to tell (at least 5)"
    path.unlink()
    assert verdict(read_together(pair), PSNR).why == "measured clip by clip in fewer than two runs"


def test_only_what_differs_is_listed(tmp_path: Path) -> None:
    settings = {"optimizer__learning_rate": 0.006, "run__run_name": "b", "model__patch_size": None}
    rows = differences(read_together([write_run(tmp_path / "a"), other(tmp_path / "b", **settings)]))
    assert [(row.key, row.values) for row in rows] == [("optimizer.learning_rate", ["–", "0.006"])]


def test_shares_add_up(pair: tuple[Path, Path]) -> None:
    terms = [
        {"term": "reconstruction", "value": 1.0, "shares": {"decoder": 0.75}},
        {"term": "flicker", "shares": {"decoder": 0.25}},
    ]
    with (pair[1] / "journal.jsonl").open("a") as file:
        file.write(json.dumps({"event": "preflight", "time": 1.0, "step": 0, "terms": terms}) + "\n")
    loss, gradient = loss_shares(read_together(pair))
    for place in (0, 1):
        assert sum(values[place] or 0 for _, values in loss.rows) == pytest.approx(100)
    assert gradient.rows == [("reconstruction", [None, 75.0]), ("flicker", [None, 25.0])]


def test_what_happened_is_told_with_its_reason(pair: tuple[Path, Path]) -> None:
    with (pair[1] / "journal.jsonl").open("a") as file:
        file.write(
            json.dumps(
                {
                    "event": "rewind",
                    "time": 1_790_000_280.0,
                    "step": 250,
                    "from_step": 255,
                    "checkpoint": "checkpoint-250",
                }
            )
            + "\n"
        )
    entry = read_together(pair)[1]
    rows, more = events(entry)
    assert more == 0
    told = [(event.what, event.why) for event in rows]
    assert ("step skipped", "loss nan, gradient norm nan") in told and ("resumed", "from checkpoint-150") in told
    assert ("taken back", "from step 255 to checkpoint-250") in told
    clock = timeline(read_together(pair))
    assert clock is not None and clock.ticks[-1] == (100.0, "4 min 50 s")
    (first, second), marks = clock.lanes[0].running, [mark.kind for mark in clock.lanes[0].marks]
    assert first == (0.0, pytest.approx(100 * 90 / 290, abs=0.01)) and second[0] == pytest.approx(
        100 * 200 / 290, abs=0.01
    )
    assert marks == ["end", "end", "skip"]


def test_maps_show_the_amplified_difference(tmp_path: Path) -> None:
    runs = [write_run(tmp_path / "a"), other(tmp_path / "b")]
    for run, change in zip(runs, (0.0, 40.0), strict=True):
        _preview(run, change)
    entries = read_together(runs)
    found = embed_clips(entries, "taehv", AUTOENCODER)
    (clip,) = [one for one in found.clips if one.name == CLIPS[0]]
    path = tmp_path / "clip.mp4"
    path.write_bytes(base64.b64decode(clip.uri.partition(",")[2]))
    picture = next(iter(iter_frames(path))).astype(float)
    assert picture.shape == (2 * 64, 3 * 64, 3) and found.factor == 4
    middle = slice(16, 48)

    def tile(row: int, column: int) -> np.ndarray:
        return picture[64 * row :, 64 * column :][middle, middle].mean((0, 1))

    assert tile(0, 0) == pytest.approx([100] * 3, abs=4) and tile(0, 2) == pytest.approx([140] * 3, abs=4)
    assert tile(1, 1) == pytest.approx(ANCHORS[-1], abs=12), "nothing differs: dark"
    assert tile(1, 2) == pytest.approx(heat(np.array(40.0), 4), abs=12)
    assert [panel.place for panel in clip.panels] == [None, 0, 0, 1, 1]


def _preview(run: Path, change: float) -> None:
    """One grey clip and a copy that is brighter by `change`, as the preview of each validation."""
    left = np.full((64, 64, 3), 100.0)
    rows = np.concatenate([left, left + change, np.zeros_like(left)], 1).astype(np.uint8)
    for folder in (run / "previews").iterdir():
        for path in folder.glob("*.mp4"):
            path.unlink()
        write_video(folder / f"{file_name(CLIPS[0])}.mp4", [rows] * 4, 12.0)


def test_the_ramp_rises_in_lightness_all_along() -> None:
    light = heat(np.linspace(0, 255, 256), 1) @ np.array([0.2126, 0.7152, 0.0722])
    assert (np.diff(light) >= -0.5).all() and light[-1] - light[0] > 200
    assert (heat(np.array([64.0, 200.0]), 4) == heat(np.array([255.0, 255.0]), 1)).all()


def test_clips_say_what_they_are_examples_of_and_keep_to_the_budget(pair: tuple[Path, Path]) -> None:
    entries = read_together(pair)
    found = embed_clips(entries, "taehv", AUTOENCODER)
    assert [(clip.name, clip.why) for clip in found.clips] == [
        (CLIPS[0], "worst PSNR, runs differ most"),
        (CLIPS[1], "best PSNR"),
    ]
    assert found.steps == {0: 200, 1: 200}
    assert found.clips[0].told[1] == (1, "PSNR 32.06 dB · SSIM 0.750")
    none = embed_clips(entries, "taehv", AUTOENCODER, limit=100)
    assert not none.clips and "a page holds at most" in none.notes[0]


def test_other_cuts_of_a_clip_are_not_put_side_by_side(pair: tuple[Path, Path]) -> None:
    name = f"{file_name(CLIPS[0])}.mp4"
    write_mp4(pair[1] / "previews" / "step-200" / name, seed=70)
    (pair[1] / "previews" / "step-200" / f"{file_name(CLIPS[1])}.mp4").write_bytes(b"cut")
    found = embed_clips(read_together(pair), "taehv", AUTOENCODER)
    assert not found.clips
    assert any("cut or scaled it in different ways" in note for note in found.notes)
    assert any("A clip of B is left out" in note for note in found.notes)


def test_point_clouds_share_one_box(pair: tuple[Path, Path]) -> None:
    one = shown(name="room")
    one = replace(one, worlds=(replace(one.worlds[0], name="estimated"), one.worlds[1]))
    for run in pair:
        write_scene_file(run / "previews" / "step-300" / "room.npz", one)
    scenes, notes = shared_scenes(read_together(pair))
    assert not notes and len(scenes) == 1
    panes = scenes[0]["panes"]
    assert [pane["run"] for pane in panes] == [0, 1, None]
    assert panes[0]["points"] == panes[1]["points"] != panes[2]["points"]
    write_scene_file(pair[1] / "previews" / "step-300" / "room.npz", replace(one, scale=7.0))
    assert shared_scenes(read_together(pair)) == ([], ["No point cloud of room: the runs cut it in different ways."])


def test_what_cannot_be_compared_is_refused(tmp_path: Path) -> None:
    first, second = write_run(tmp_path / "a"), write_run(tmp_path / "b")
    with pytest.raises(ConfigError, match="more than once"):
        read_together([first, second, tmp_path / "b" / ".." / "a"])
    with pytest.raises(ConfigError, match="at most 8"):
        read_together([first] * 9)
    with pytest.raises(MissingFileError, match="No run folder"):
        read_together([first, tmp_path / "c"])
    (second / "config.yaml").write_text("task: fantasy_world\n")
    with pytest.raises(ConfigError, match=r"different tasks.*taehv: a; fantasy_world: b"):
        build_comparison([first, second])
    assert not (tmp_path / "report-compare.html").exists()


def test_damaged_empty_and_running_runs_are_compared_all_the_same(pair: tuple[Path, Path], tmp_path: Path) -> None:
    lines = (pair[1] / "journal.jsonl").read_text().splitlines()
    (pair[1] / "journal.jsonl").write_text("\n".join(lines[:60]) + "\n" + lines[60][:30])
    (pair[1] / "validation_history.json").write_text("[{")
    (pair[1] / "config.yaml").write_text("a: [")
    empty = tmp_path / "runs" / "empty"
    empty.mkdir()
    (empty / "config.yaml").write_text("task: taehv\n")
    page = Page(build_comparison([*pair, empty]))
    assert "B wide: config.yaml is damaged" in page.text and "B wide: validation_history.json is damaged" in page.text
    assert "C empty: There is no journal.jsonl" in page.text and "B wide: 1 of 61 lines" in page.text
    assert "No end is recorded." in page.text
    found = drawn(page)
    assert [curve["run"] for one in found["charts"] if one["title"] == "Total loss" for curve in one["curves"]] == [
        0,
        1,
    ]
    nothing = Page(build_comparison([empty, other(tmp_path / "void")], tmp_path / "x.html"))
    assert "Nothing is measured" not in nothing.text
    for file in (pair[0] / "journal.jsonl", pair[0] / "validation_history.json"):
        file.unlink()
    assert "No training step is recorded yet." in Page(build_comparison([pair[0], empty])).text


def test_text_from_a_run_cannot_become_markup(pair: tuple[Path, Path]) -> None:
    evil = "</script><script>alert(1)</script><img src=x onerror=alert(1)>"
    scripts = len(Page(build_comparison(pair)).all("script"))
    lines = [json.loads(line) for line in (pair[1] / "journal.jsonl").read_text().splitlines()]
    for line in lines:
        if line["event"] == "step":
            line["losses"] = {evil: 1.0, **line["losses"]}
        line["reason"] = line["device"] = evil
    (pair[1] / "journal.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (pair[1] / "config.yaml").write_text(f"task: taehv\nname: '{evil}'\n")
    page = Page(build_comparison(pair))
    assert not page.all("img") and len(page.all("script")) == scripts


@needs_chromium
def test_on_a_phone_everything_fits_and_nothing_is_complained_of(pair: tuple[Path, Path], tmp_path: Path) -> None:
    page = build_comparison(pair)
    found = on_a_phone(page, tmp_path)
    assert found["console"] == ""
    assert found["inner"] == "390" and int(found["taken"]) <= 390
    charts = [one for one in drawn(Page(page))["charts"] if one["title"] != "Latent std"]  # in a part that is not open
    assert int(found["plots"]) == len(charts)
    smooth = sum(2 * len(one["curves"]) for one in charts if not one.get("plain") and "steps" not in one["curves"][0])
    plain = sum(len(one["curves"]) for one in charts if one.get("plain"))
    measured = [one for one in charts if "steps" in one["curves"][0]]
    bands = sum(sum(low is not None for low in curve["low"]) > 1 for one in measured for curve in one["curves"])
    baselines = sum(any(value is not None for value in one["curves"][0]["baseline"]) for one in measured)
    assert int(found["curves"]) == smooth + plain + bands + baselines + sum(len(one["curves"]) for one in measured)


@needs_chromium
def test_runs_can_be_hidden_and_smoothing_set(pair: tuple[Path, Path], tmp_path: Path) -> None:
    page = build_comparison(pair, clip_bytes=0)
    acted = """<script>
    const told = document.documentElement.dataset, chart = document.querySelector("[aria-label='Chart: Total loss']");
    const set = (selector, change) => {
      const part = document.querySelector(selector);
      change(part);
      part.dispatchEvent(new Event("input", { bubbles: true }));
    };
    const say = (name) => { told[name] = `${chart.data.length} ${chart.layout.xaxis.title.text}`; };
    setTimeout(() => { say("first"); set("[data-run='1']", (box) => { box.checked = false; }); }, 1000);
    setTimeout(() => { say("hidden"); set("#smooth", (slider) => { slider.value = 0; }); }, 2000);
    setTimeout(() => { say("raw"); set("#axis", (axis) => { axis.value = "clips"; }); }, 3000);
    setTimeout(() => { say("last"); }, 4000);
    </script></body>"""
    page.write_text(page.read_text().replace("</body>", acted))
    markup = document(page.as_uri(), tmp_path)
    said = dict(re.findall(r' data-(\w+)="(\d [^"]*)"', markup[: markup.index("<head>")]))
    assert said == {"first": "4 step", "hidden": "2 step", "raw": "1 step", "last": "1 clips seen"}


@needs_chromium
def test_point_clouds_turn_together(pair: tuple[Path, Path], tmp_path: Path) -> None:
    one = shown(3, 12, 16, name="room")
    one = replace(one, worlds=(replace(one.worlds[0], name="estimated"), one.worlds[1]))
    for run in pair:
        write_scene_file(run / "previews" / "step-300" / "room.npz", one)
    page = build_comparison(pair, clip_bytes=0)
    turned = """<script>
    const spaces = [...document.querySelectorAll(".space")];
    const all = () => JSON.stringify(spaces.map((space) => space.layout && space.layout.scene.camera.eye));
    const wait = setInterval(() => {
      const part = document.querySelector(".clouds");
      if (part.dataset.state !== "ready") return;
      clearInterval(wait);
      part.dataset.before = all();
      part.dispatchEvent(new KeyboardEvent("keydown", { key: "ArrowLeft" }));
      setTimeout(() => { part.dataset.after = all(); }, 500);
    }, 50);
    </script></body>"""
    page.write_text(page.read_text().replace("</body>", turned))
    markup = document(page.as_uri(), tmp_path)
    before, after = (
        json.loads(html.unescape(re.search(f' data-{when}="([^"]*)"', markup)[1]))  # type: ignore[index]
        for when in ("before", "after")
    )
    assert len(before) == len(after) == 3
    assert before[0] == before[1] == before[2] and after[0] == after[1] == after[2] and before[0] != after[0]


@needs_chromium
def test_a_request_would_be_seen(pair: tuple[Path, Path], tmp_path: Path) -> None:
    """The check above can fail: the page's own policy stops a request, and the console says so."""
    page = build_comparison(pair)
    page.write_text(page.read_text().replace("<h1>", '<h1><img src="https://example.org/x.png">'))
    assert "Content Security Policy" in on_a_phone(page, tmp_path)["console"]


def test_entries_have_letters_in_the_order_given(pair: tuple[Path, Path]) -> None:
    entries: list[Entry] = read_together(pair[::-1])
    assert [(entry.letter, entry.name) for entry in entries] == [("A", "wide"), ("B", "plain")]
