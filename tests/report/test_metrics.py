"""What the report knows of metrics, for tasks of this package and for others."""

import json
from pathlib import Path

import yaml

from tinyworld.report import build_report
from tinyworld.report.metrics import metrics_of
from tinyworld.report.read import read_run


def test_a_task_of_another_package_is_shown_with_each_number_it_measures(run_folder: Path) -> None:
    config = run_folder / "config.yaml"
    config.write_text(yaml.safe_dump(yaml.safe_load(config.read_text()) | {"task": "colours"}))
    history = run_folder / "validation_history.json"
    entries = [entry | {"hue_error": 0.25} for entry in json.loads(history.read_text())]
    history.write_text(json.dumps(entries))
    shown = {metric.key: metric.label for metric in metrics_of(read_run(run_folder))}
    assert shown["hue_error"] == "hue_error" and shown["psnr"] == "PSNR" and "step" not in shown and "time" not in shown
    assert "hue_error" in build_report(run_folder).read_text()


def test_what_training_clips_are_in_the_mean_stands_beside_a_world(run_folder: Path) -> None:
    config = run_folder / "config.yaml"
    config.write_text(yaml.safe_dump(yaml.safe_load(config.read_text()) | {"task": "fantasy_world:stage2"}))
    history = run_folder / "validation_history.json"
    entries = json.loads(history.read_text())
    for entry in entries:
        entry |= {"abs_rel": 0.2, "delta1": 0.73, "baseline": {"abs_rel": 0.37, "mean_map_abs_rel": 0.189}}
    history.write_text(json.dumps(entries))
    page = build_report(run_folder).read_text()
    assert "median depth 0.370 (-0.170); mean training depth map 0.189 (+0.011)" in page
    assert "dotted: mean training depth map" in page and "mean training track" not in page
