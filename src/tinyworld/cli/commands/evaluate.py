"""`tinyworld evaluate VIDEO… --model M`: full videos through the model, one table, JSON beside it.

`tinyworld evaluate fantasy …` is another command, with arguments of its own: `evaluate_world`.
"""

import argparse
from collections.abc import Sequence
from typing import Any

from tinyworld.cli.commands import evaluate_world
from tinyworld.cli.commands.reconstruct import (
    add_model_arguments,
    add_speed_arguments,
    fast_model,
    reconstruct_each,
)
from tinyworld.cli.paths import check_writable, find_videos, given_path, refuse_overwriting
from tinyworld.core.errors import EXIT_USER_ERROR


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = commands.add_parser(
        "evaluate",
        help="PSNR, SSIM and flicker of a model on whole videos, beside a mean-colour baseline; "
        "evaluate fantasy …: geometry of a video world",
        allow_abbrev=False,
    )
    add_model_arguments(parser)
    add_speed_arguments(parser)
    parser.add_argument("--json", type=given_path, metavar="FILE", help="also write the numbers and their means here")
    parser.set_defaults(run=run)
    _hand_over(parser)


def _hand_over(parser: argparse.ArgumentParser) -> None:
    """After the word `fantasy` the arguments are another parser's: argparse has no such words beside positional arguments."""
    own, world = parser.parse_known_args, evaluate_world.make_parser(f"{parser.prog} {evaluate_world.WORD}")

    def parse(args: Sequence[str] | None = None, namespace: Any = None) -> Any:
        if args and args[0] == evaluate_world.WORD:
            return world.parse_known_args(args[1:], namespace)
        return own(args, namespace)

    parser.parse_known_args = parse  # type: ignore[method-assign,assignment]


def run(options: argparse.Namespace) -> int:
    from tinyworld.core.files import write_json
    from tinyworld.infer.reconstruct import means

    videos = find_videos(options.videos)
    if options.json is not None:
        check_writable(options.json, "--json")
        refuse_overwriting([options.json], [options.model, *(video.path for video in videos)], "--json")
    rows, failed = reconstruct_each(options, fast_model(options), videos, [None] * len(videos))
    if options.json is not None:
        keys = ("frames", "height", "width", "psnr", "ssim", "flicker", "baseline_psnr", "frames_per_second")
        clips = [{"video": str(row.video), **{key: getattr(row, key) for key in keys}} for row in rows]
        write_json(options.json, {"model": str(options.model), "mean": means(rows), "clips": clips})
    return EXIT_USER_ERROR if failed else 0
