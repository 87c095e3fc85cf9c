"""`tinyworld evaluate VIDEO… --model M`: full videos through the model, one table, JSON beside it."""

import argparse
from pathlib import Path

from tinyworld.cli.commands.reconstruct import add_model_arguments, open_model, reconstruct_each
from tinyworld.core.errors import EXIT_USER_ERROR


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = commands.add_parser(
        "evaluate",
        help="PSNR, SSIM and flicker of a model on whole videos, beside a mean-colour baseline",
        allow_abbrev=False,
    )
    add_model_arguments(parser)
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the numbers here")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    from tinyworld.core.files import write_json

    model = open_model(options)
    rows, failed = reconstruct_each(options, model, None)
    if options.json is not None:
        keys = ("frames", "height", "width", "psnr", "ssim", "flicker", "baseline_psnr", "frames_per_second")
        clips = [{"video": str(row.video), **{key: getattr(row, key) for key in keys}} for row in rows]
        write_json(options.json, {"model": str(options.model), "clips": clips})
    return EXIT_USER_ERROR if failed else 0
