"""Quality of finished or running runs, validation by validation, with bootstrap intervals over the held-out clips.

    python benchmarks/quality_table.py output/RUN… [--steps 250,1000] [--last]

Reads each run's validation_history.json and prints one Markdown table. An interval is the 95 % percentile bootstrap of the
mean over clips: how much it depends on which clips were held out, not on the training's seed.
"""

import argparse
import json
import math
from pathlib import Path
from typing import Any

from tinyworld.metrics.bootstrap import interval

METRICS = {"psnr": 2, "ssim": 3, "flicker": 4, "sharpness": 3, "gmsd": 4, "round_trip_psnr": 2}
"""Metric → digits shown."""


def rows(run: Path, steps: list[int], last: bool) -> list[dict[str, Any]]:
    history: list[dict[str, Any]] = json.loads((run / "validation_history.json").read_text(encoding="utf-8"))
    if last:
        return history[-1:]
    return [entry for entry in history if not steps or entry["step"] in steps]


def cell(entry: dict[str, Any], metric: str, digits: int) -> str:
    values = [clip.get(metric) for clip in entry["clips"]]
    known = [value for value in values if value is not None]
    if not known:
        return "–"
    low, high = interval(known)
    mean = math.fsum(known) / len(known)
    return f"{mean:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--steps", default="", help="only these validations, e.g. 250,1000")
    parser.add_argument("--last", action="store_true", help="only the last validation of each run")
    options = parser.parse_args()
    steps = [int(step) for step in options.steps.split(",") if step]
    print(f"| run | step | {' | '.join(METRICS)} |")
    print(f"|{'---|' * (2 + len(METRICS))}")
    for run in options.runs:
        for entry in rows(run, steps, options.last):
            cells = " | ".join(cell(entry, metric, digits) for metric, digits in METRICS.items())
            print(f"| {run.name} | {entry['step']:,} | {cells} |")
            base = entry["baseline"]
    shown = ", ".join(f"{name} {value:.4g}" for name, value in base.items() if value is not None)
    print(f"\nbaseline of the last run: {shown}; {len(entry['clips'])} held-out clips")


if __name__ == "__main__":
    main()
