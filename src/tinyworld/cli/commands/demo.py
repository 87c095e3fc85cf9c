"""`tinyworld demo`: the main jobs on the embedded data, in minutes on a CPU."""

import argparse
from typing import TYPE_CHECKING, Any

from tinyworld.cli.commands.train import train
from tinyworld.cli.fantasy_demo import run_demo
from tinyworld.cli.flags import parse_overrides
from tinyworld.cli.recipe_arguments import add_recipe_parser, read_recipe

if TYPE_CHECKING:
    from pathlib import Path

WORLD = "fantasy"


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    what = "render rooms and train on them: a small autoencoder, or with the word fantasy a small video world"
    add_recipe_parser(
        commands, "demo", run, help=what, recipe="taehv_demo", more=" | fantasy [--short] [--codec_path DIR]"
    )


def run(options: argparse.Namespace) -> int:
    """`demo`: the autoencoder. `demo fantasy`: codec, video transformer and both stages of a world."""
    if options.overrides[:1] == [WORLD]:
        flags = parse_overrides(options.overrides[1:])
        run_demo(flags, short=flags.pop("short", False) in (True, "true"))
        return 0
    outcome = train(read_recipe(options))
    last = outcome.history[-1]
    print(_table(last))
    print(f"report: {outcome.folder / 'report.html'}")
    print(f"weights: {outcome.folder / 'final_model.safetensors'}")
    _say_next(outcome.folder)
    return 0


def _table(entry: dict[str, Any]) -> str:
    base, clips = entry["baseline"], len(entry["clips"])
    return (
        f"\n{clips} held-out rooms, never trained on (step {entry['step']})\n"
        f"{'':<16}{'PSNR':>9}{'SSIM':>9}\n"
        f"{'mean colour':<16}{base['psnr']:>6.2f} dB{base['ssim']:>9.3f}\n"
        f"{'this model':<16}{entry['psnr']:>6.2f} dB{entry['ssim']:>9.3f}\n"
    )


def _say_next(folder: "Path") -> None:
    print(f"try it on your own video: tinyworld reconstruct VIDEO --model {folder / 'best_model'}")
