"""`tinyworld demo fantasy`: codec → video transformer → stage 1 → stage 2 on the embedded rooms, and a table at the end."""

import shlex
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tinyworld.cli.commands.train import train
from tinyworld.config.load import load_recipe
from tinyworld.config.schema import FantasyRecipe
from tinyworld.core.errors import ConfigError

LONG = {"codec": 300, "base": 1500, "stage1": 800, "stage2": 150}
SHORT = {"codec": 200, "base": 300, "stage1": 200, "stage2": 60}
"""Optimizer steps of each part: about twelve minutes on two cores, and about five."""
FLAGS = (
    "codec_path",
    "dataset_base_path",
    "dataset_metadata_path",
    "output_dir",
    "run_name",
    "seed",
    "device",
    "cpu_threads",
)
"""What can be set from outside: codec_path leaves out the codec's training."""
WARM_UP = 0.1
FIRST_FRAME = "first.png"


def run_demo(flags: Mapping[str, Any], short: bool) -> None:
    """Train all parts one after the other and print the table. Raises ConfigError for a flag that the demo does not take."""
    unknown = [name for name in flags if name not in FLAGS]
    if unknown:
        raise ConfigError(
            f"--{unknown[0]} is no flag of the demo, which takes --short and {', '.join('--' + name for name in FLAGS)}. To "
            "change anything else train its recipes one by one: fantasy_demo_base, fantasy_demo_stage1, fantasy_demo_stage2."
        )
    steps, given = SHORT if short else LONG, dict(flags)
    name = str(given.pop("run_name", f"fantasy_demo-{time.strftime('%Y%m%d-%H%M%S')}"))
    folder = Path(str(given.pop("output_dir", "output"))) / name
    codec = Path(str(given.pop("codec_path", folder / "codec" / "best_model")))
    shared = {**given, "run.output_dir": str(folder), "codec_path": str(codec)}
    if not codec.exists():
        own = {key: value for key, value in given.items() if not key.startswith("dataset_")}
        _say(1, "a small TAEHV, which makes latents of frames")
        train(
            load_recipe(
                "taehv_demo", {**own, **_length(steps["codec"]), "run.output_dir": str(folder), "run_name": "codec"}
            )
        )
    shared["condition_cache"] = str(folder / "latents")
    _fill("fantasy_demo_base", shared)
    _say(2, "a small video transformer, from scratch: denoise clips, given their first frame and cameras")
    base = _train("fantasy_demo_base", shared, "base", steps["base"])
    _say(3, "stage 1: a geometry branch beside the frozen transformer")
    beside = {**shared, "backbone_path": str(base / "best_model")}
    first = _train("fantasy_demo_stage1", beside, "stage1", steps["stage1"])
    _say(4, "stage 2: branch, camera adapters and cross-attention together")
    last = {**beside, "stage1_checkpoint": str(first / "final_model.safetensors")}
    recipe = _recipe("fantasy_demo_stage2", last, "stage2", steps["stage2"])
    outcome = train(recipe)
    print(table(outcome.history[-1]))
    print(f"report: {outcome.folder / 'report.html'}")
    print(f"weights: {outcome.folder / 'best_model'}, beside {base / 'best_model'} and {codec}")
    film, picture = held_out_film(recipe), folder / FIRST_FRAME
    _write_first_frame(film, picture)
    print(next_steps(base, outcome.folder, film, picture))


def table(entry: Mapping[str, Any]) -> str:
    """What the last validation measured, beside what is known without a model."""
    base, clips = entry["baseline"], len(entry["clips"])
    rows = [
        ("depth, AbsRel (lower is better)", "abs_rel", base["abs_rel"], "median depth of the clip"),
        ("", "abs_rel", base.get("mean_map_abs_rel"), "mean training depth map"),
        ("depth, delta1 (higher)", "delta1", base["delta1"], "median depth of the clip"),
        ("", "delta1", base.get("mean_map_delta1"), "mean training depth map"),
        ("camera, AUC@30 (higher)", "auc30", base["auc30"], "camera that stands still"),
        ("", "auc30", base.get("mean_track_auc30"), "mean training track"),
        ("camera, ATE (lower)", "ate", base["ate"], "camera that stands still"),
        ("", "ate", base.get("mean_track_ate"), "mean training track"),
        ("denoising error (lower)", "diffusion", base["diffusion"], "no prediction"),
    ]
    lines = [
        f"\n{clips} held-out clips of scenes never trained on (step {entry['step']}); cameras are estimated, not given"
    ]
    lines.append(f"  {'':<34}{'this model':>12}{'baseline':>12}")
    for label, name, baseline, what in rows:
        if baseline is not None and entry.get(name) is not None:
            own = f"{entry[name]:.4f}" if label else ""
            lines.append(f"  {label:<34}{own:>12}{baseline:>12.4f}  {what}")
    return "\n".join(lines) + "\n"


def next_steps(base: Path, weights: Path, film: Path, picture: Path) -> str:
    """Commands to copy: base and weights are folders of runs, film a clip that was held out, picture its first frame."""
    lifted, generated = picture.parent / "lifted", picture.parent / "generated"
    model: tuple[str | Path, ...] = ("--base", base, "--weights", weights)
    commands: list[list[str | Path]] = [
        ["view", weights],
        ["lift", film, *model, "--output", lifted],
        ["view", lifted],
        ["generate", *model, "--image", picture, "--camera", "orbit:20deg", "--output", generated],
    ]
    told = [shlex.join(["tinyworld", *map(str, command)]) for command in commands]
    why = "Start with view and lift: so small a model knows how rooms are laid out in the mean; generate makes colours, no room."
    return "\n  ".join(["\nnext, ready to copy:", *told]) + f"\n{why}"


def held_out_film(recipe: FantasyRecipe) -> Path:
    """The video of the first sample that the recipe's run never trained on."""
    from tinyworld.tasks.fantasy.sources import find_sources

    return find_sources(recipe).held_out[0].entry.video


def _write_first_frame(film: Path, picture: Path) -> None:
    from tinyworld.media.png import write_png
    from tinyworld.media.read import read_frames

    write_png(picture, read_frames(film, [0])[0])


def _say(number: int, what: str) -> None:
    print(f"\n{number}/4  {what}", flush=True)


def _length(steps: int) -> dict[str, Any]:
    """Measured once in the middle and once at the end."""
    return {
        "max_train_steps": steps,
        "lr_warmup_steps": max(1, round(WARM_UP * steps)),
        "validation_steps": max(1, steps // 2),
        "checkpointing_steps": max(1, steps // 2),
    }


def _recipe(name: str, flags: Mapping[str, Any], run_name: str, steps: int) -> FantasyRecipe:
    recipe = load_recipe(name, {**flags, **_length(steps), "run_name": run_name})
    assert isinstance(recipe, FantasyRecipe)
    return recipe


def _train(name: str, flags: Mapping[str, Any], run_name: str, steps: int) -> Path:
    return train(_recipe(name, flags, run_name, steps)).folder


def _fill(name: str, flags: Mapping[str, Any]) -> None:
    """The latents of all clips that the three parts will see, once."""
    from tinyworld.tasks.fantasy.fill_cache import fill_cache

    recipe = load_recipe(name, flags)
    assert isinstance(recipe, FantasyRecipe)
    fill_cache(recipe)
