"""`tinyworld demo`: the main job on the embedded data, in minutes on a CPU."""

import argparse
from typing import TYPE_CHECKING, Any

from tinyworld.cli.flags import parse_overrides

if TYPE_CHECKING:
    from pathlib import Path


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = commands.add_parser(
        "demo",
        help="render rooms, train a small autoencoder on them, measure it and write a report",
        usage="tinyworld demo [--KEY VALUE …]",
        description="The recipe taehv_demo on the embedded rooms; every key of the recipe is a flag here too.",
        allow_abbrev=False,
    )
    parser.add_argument("overrides", nargs=argparse.REMAINDER, metavar="--KEY VALUE")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    recipe_overrides = parse_overrides(options.overrides)
    from tinyworld.cli.commands.train import train
    from tinyworld.config.load import load_recipe

    outcome = train(load_recipe("taehv_demo", recipe_overrides))
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
