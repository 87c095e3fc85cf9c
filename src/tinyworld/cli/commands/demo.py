"""`tinyworld demo`: the main job on the embedded data, in minutes on a CPU."""

import argparse
from typing import TYPE_CHECKING, Any

from tinyworld.cli.commands.train import train
from tinyworld.cli.recipe_arguments import add_recipe_parser, read_recipe

if TYPE_CHECKING:
    from pathlib import Path


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    what = "render rooms, train a small autoencoder on them, measure it and write a report"
    add_recipe_parser(commands, "demo", run, help=what, recipe="taehv_demo")


def run(options: argparse.Namespace) -> int:
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
