"""`tinyworld checkpoint list|verify|prune RUN`."""

import argparse
from pathlib import Path

from tinyworld.cli.paths import given_path
from tinyworld.core.errors import MissingFileError


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = commands.add_parser(
        "checkpoint", help="list, verify or prune the checkpoints of a run", allow_abbrev=False
    )
    parser.add_argument("action", choices=("list", "verify", "prune"))
    parser.add_argument(
        "folder", metavar="RUN", type=given_path, help="a run folder, or one checkpoint folder to verify"
    )
    parser.add_argument(
        "--keep", type=int, default=1, metavar="N", help="prune: how many of the newest to keep (default 1)"
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    from tinyworld.core.errors import EXIT_USER_ERROR, ConfigError
    from tinyworld.engine import checkpoint

    folder: Path = options.folder
    if not folder.is_dir():
        raise MissingFileError(f"No folder {folder}. Name a run folder, such as output/<run>.")
    paths = [folder] if checkpoint.NAME.match(folder.name) else checkpoint.listing(folder)
    if not paths:
        raise MissingFileError(f"{folder} holds no checkpoint-N folder. Name a run folder, such as output/<run>.")
    if options.action == "prune":
        if options.keep < 1:
            raise ConfigError(f"--keep {options.keep} would remove every checkpoint; keep at least 1.")
        removed = checkpoint.prune(folder, options.keep)
        print(f"removed {len(removed)}: {', '.join(path.name for path in removed) or 'nothing'}")
        return 0
    found = [checkpoint.inspect(path) for path in paths]
    for one in found:
        verdict = "complete" if not one.problems else "DAMAGED: " + "; ".join(one.problems)
        print(f"{one.path.name:<20} step {one.step:<8} {one.bytes / 2**20:8.1f} MiB  {verdict}")
    damaged = any(one.problems for one in found)
    return EXIT_USER_ERROR if options.action == "verify" and damaged else 0
