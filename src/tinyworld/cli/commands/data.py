"""`tinyworld data rooms`, `scan` and `cache`; `verify` and `prepare` are in `data_worlds`."""

import argparse
from typing import TYPE_CHECKING

from tinyworld.cli.commands import data_worlds
from tinyworld.cli.paths import given_path
from tinyworld.cli.recipe_arguments import add_recipe_parser, read_recipe
from tinyworld.config.schema import FantasyRecipe, TaehvRecipe

if TYPE_CHECKING:
    from tinyworld.tasks.cache_filling import Filled


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = commands.add_parser(
        "data",
        help="render the embedded rooms, look at videos or RGB-D samples, convert public data sets, or fill a cache of latents",
        allow_abbrev=False,
    )
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    rooms = actions.add_parser("rooms", help="render the embedded data set", allow_abbrev=False)
    rooms.add_argument("folder", metavar="FOLDER", type=given_path, help="where to; created, complete or absent")
    rooms.add_argument("--scenes", type=int, default=12, help="rooms, one clip each (default 12)")
    rooms.add_argument("--frames", type=int, default=49, help="frames per clip (default 49)")
    rooms.add_argument("--height", type=int, default=128, help="pixels (default 128)")
    rooms.add_argument("--width", type=int, default=128, help="pixels (default 128)")
    rooms.add_argument("--fps", type=int, default=24, help="frame rate of the clips (default 24)")
    rooms.add_argument("--seed", type=int, default=0, help="other seeds give other rooms (default 0)")
    rooms.add_argument(
        "--no_points", action="store_true", help="leave out the point maps (they follow from depth and cameras)"
    )
    rooms.set_defaults(run=make_rooms)
    scan = actions.add_parser(
        "scan", help="probe every video: sizes, lengths, what cannot be read and why", allow_abbrev=False
    )
    scan.add_argument("folder", metavar="DATA_ROOT", type=given_path)
    scan.add_argument("--annotation_file", type=given_path, help="JSON list of the videos to use")
    scan.add_argument(
        "--deep", action="store_true", help="also decode every frame: finds damage that headers do not show"
    )
    scan.set_defaults(run=scan_folder)
    add_recipe_parser(
        actions,
        "cache",
        fill_cache,
        help="compute the latents (and text and image tokens) that a recipe trains on, as far as they are missing",
        more=" [--prune]",
    )
    data_worlds.add_parsers(actions)


def make_rooms(options: argparse.Namespace) -> int:
    from tinyworld.core.console import counting
    from tinyworld.data import rooms

    with counting("rendering rooms") as on_progress:
        folder = rooms.make_rooms(
            options.folder,
            scenes=options.scenes,
            frames=options.frames,
            height=options.height,
            width=options.width,
            seed=options.seed,
            fps=options.fps,
            points=not options.no_points,
            on_progress=on_progress,
        )
    print(f"{options.scenes} rooms of {options.frames} frames, {options.height}x{options.width} (h x w): {folder}")
    return 0


def scan_folder(options: argparse.Namespace) -> int:
    from tinyworld.core.console import counting
    from tinyworld.core.errors import EXIT_USER_ERROR
    from tinyworld.data.manifest import list_videos
    from tinyworld.data.scan import Need, scan

    need = Need(height=1, width=1, n_frames=1, quarantine_budget=1.0)
    with counting("scanning videos") as on_progress:
        entries = list_videos(options.folder, options.annotation_file)
        report = scan(entries, need, deep=options.deep, on_progress=on_progress)
    for clip in report.clips:
        print(f"{clip.frames:6d} frames  {clip.width:4d}x{clip.height:<4d}  {clip.fps:6.2f} fps  {clip.id}")
    for path, reason in report.quarantined:
        print(f"UNREADABLE  {path}: {reason}")
    frames = sum(clip.frames for clip in report.clips)
    print(f"{len(report.clips)} usable videos, {frames} frames; {len(report.quarantined)} unreadable")
    return EXIT_USER_ERROR if report.quarantined else 0


def fill_cache(options: argparse.Namespace) -> int:
    """`--prune` also removes what this recipe does not need."""
    prune = "--prune" in options.overrides
    options.overrides = [flag for flag in options.overrides if flag != "--prune"]
    recipe = read_recipe(options)
    if isinstance(recipe, FantasyRecipe):
        from tinyworld.tasks.fantasy import fill_cache as worlds

        found = worlds.fill_cache(recipe, prune)
        if found.prompts != worlds.Filled():
            _tell("prompts", found.prompts)
        _tell("clips", done := found.clips)
    else:
        from tinyworld.tasks.taehv import fill_cache as filling

        assert isinstance(recipe, TaehvRecipe)
        _tell("latents", done := filling.fill_cache(recipe, prune))
    if prune:
        print(f"{done.removed} entries removed that this recipe does not need ({done.removed_bytes / 2**20:.1f} MiB)")
    for path, reason in done.faults.items():
        print(f"UNREADABLE  {path}: {reason}")
    return 0


def _tell(what: str, done: "Filled") -> None:
    others = f", {done.by_others} made by another process meanwhile" if done.by_others else ""
    print(f"{done.there} {what} were there, {done.made} made ({done.bytes / 2**20:.1f} MiB){others}")
