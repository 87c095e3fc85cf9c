"""From arguments to a command and its exit code: reads the command first and imports what it needs last."""

import argparse
import errno
import logging
import os
import re
import sys
from collections.abc import Callable
from typing import NoReturn

from tinyworld.cli.commands import (
    check,
    checkpoint,
    completion,
    compress,
    data,
    demo,
    doctor,
    evaluate,
    export,
    generate,
    lift,
    reconstruct,
    replay,
    report,
    serve,
    supervise,
    train,
    view,
)
from tinyworld.core.console import ConsoleHandler
from tinyworld.core.errors import (
    DISK_FULL,
    EXIT_USER_ERROR,
    ConfigError,
    Interrupted,
    ProcessLost,
    UserError,
    exit_code_of,
    is_elsewhere,
    nearest_name,
)
from tinyworld.core.files import STAGING_PREFIX
from tinyworld.core.version import __version__

COMMANDS = (
    train,
    supervise,
    check,
    demo,
    reconstruct,
    generate,
    lift,
    evaluate,
    data,
    checkpoint,
    compress,
    export,
    report,
    view,
    serve,
    doctor,
    replay,
    completion,
)
STAGING_NAME = re.compile(rf"{re.escape(STAGING_PREFIX)}(\d+|w[0-9a-f.]+)-(old-)?")
"""What a path has in it while it is being written; the user knows it without."""
INVALID_CHOICE = re.compile(r"invalid choice: '([^']*)' \(choose from (.+)\)$")
"""What argparse says of one."""
WHAT_NOW = {
    errno.EEXIST: "A folder is needed here. Give another path, or remove the file.",
    errno.ENOTDIR: "A part of this path is a file where a folder is needed. Give another path.",
    errno.EISDIR: "A file is needed here, and a folder has this name. Give another path.",
    errno.ENOENT: "Give a path that exists, or one where it can be created.",
    errno.EACCES: "Give a path that you may read and write, or change its permissions.",
    errno.EPERM: "Give a path that you may read and write, or change its permissions.",
    errno.EROFS: "Give a path on a disk that can be written to.",
    errno.ENAMETOOLONG: "Give a shorter path.",
    **dict.fromkeys(DISK_FULL, "Make room, or give a path on another disk, and start again."),
}


class _Parser(argparse.ArgumentParser):
    """Says of a choice that is none which one is nearest."""

    def error(self, message: str) -> NoReturn:
        if wrong := INVALID_CHOICE.search(message):
            choices = re.findall("'([^']+)'", wrong[2])
            message += f".{nearest_name(wrong[1], choices)}"
        super().error(message)


def build_parser() -> argparse.ArgumentParser:
    """The parser with every command; each command module adds its own part."""
    parser: argparse.ArgumentParser = _Parser(
        prog="tinyworld",
        description="Train and run tiny causal video autoencoders (TAEHV) and video worlds with geometry (FantasyWorld).",
        epilog="--debug with any command shows the traceback of an error.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"tinyworld {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for module in COMMANDS:
        module.add_parser(commands)
    return parser


def run_command(arguments: list[str]) -> int:
    """Run the command that the arguments name and say in one paragraph what went wrong; returns the exit code.

    A traceback is left to errors of the program, and to --debug.
    """
    debug = "--debug" in arguments
    logging.basicConfig(level=logging.WARNING, format="%(message)s", handlers=[ConsoleHandler()])

    def work() -> int:
        parser, given = build_parser(), [argument for argument in arguments if argument != "--debug"]
        if not given:
            parser.print_help(sys.stderr)
            return EXIT_USER_ERROR
        options = parser.parse_args(given)
        return int(options.run(options) or 0)

    return exit_code(work, debug)


def exit_code(work: Callable[[], int], debug: bool = False) -> int:
    """What `work` returns, or the code of what it raised, told in one paragraph on stderr. What another process of the run
    met is told there. Errors of the program are raised, and all of them with `debug`."""
    try:
        return work()
    except Interrupted as end:
        _say(end, f"\n{end}. Go on with --run_name {end.folder.name} --resume_from_checkpoint latest.")
        return exit_code_of(end)
    except BrokenPipeError as error:
        return exit_code_of(error)
    except (ProcessLost, UserError) as error:
        if debug:
            raise
        _say(error, _paragraph(error))
        return exit_code_of(error)
    except OSError as error:
        if debug or (error.filename is None and error.errno not in DISK_FULL):
            raise
        _say(error, _about_file(error))
        return exit_code_of(error)


def _say(error: Exception, text: str) -> None:
    """Every process of a run ends with the same words; one of them says them."""
    if not is_elsewhere(error) and not (isinstance(error, Interrupted) and os.environ.get("RANK", "0") != "0"):
        print(text, file=sys.stderr)


def _paragraph(error: Exception) -> str:
    if isinstance(error, ConfigError) and len(error.problems) > 1:
        lines = "\n".join(f"  {number}. {problem}" for number, problem in enumerate(error.problems, 1))
        return f"error: {len(error.problems)} problems\n{lines}"
    return f"error: {error}"


def _about_file(error: OSError) -> str:
    path = error.filename2 or error.filename
    where = f"{STAGING_NAME.sub('', str(path))}: " if path is not None else ""
    advice = WHAT_NOW.get(error.errno or 0, "Give another path.")
    return f"error: {where}{error.strerror or type(error).__name__}. {advice} (--debug shows where it happened.)"
