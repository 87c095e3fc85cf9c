"""`tinyworld`: reads the command first and imports what it needs last, so that mistakes are met in milliseconds."""

import argparse
import logging
import sys
from collections.abc import Sequence

from tinyworld.cli.commands import check, checkpoint, data, demo, evaluate, reconstruct, report, train
from tinyworld.core.console import ConsoleHandler
from tinyworld.core.errors import EXIT_INTERRUPTED, EXIT_USER_ERROR, ConfigError, Interrupted, UserError
from tinyworld.core.version import __version__

COMMANDS = (train, check, demo, reconstruct, evaluate, data, checkpoint, report)


def build_parser() -> argparse.ArgumentParser:
    """The parser with every command; each command module adds its own part."""
    parser = argparse.ArgumentParser(
        prog="tinyworld",
        description="Train and run tiny causal video autoencoders (TAEHV).",
        epilog="--debug with any command shows the traceback of an error.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"tinyworld {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for module in COMMANDS:
        module.add_parser(commands)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code: 0, 2 for a mistake of the user, 75 when stopped after saving."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in arguments
    arguments = [argument for argument in arguments if argument != "--debug"]
    logging.basicConfig(level=logging.WARNING, format="%(message)s", handlers=[ConsoleHandler()])
    options = build_parser().parse_args(arguments)
    try:
        return int(options.run(options) or 0)
    except Interrupted as end:
        print(f"\n{end}. Go on with --resume_from_checkpoint latest.", file=sys.stderr)
        return EXIT_INTERRUPTED
    except UserError as error:
        if debug:
            raise
        print(_paragraph(error), file=sys.stderr)
        return EXIT_USER_ERROR
    except KeyboardInterrupt:
        print("\nstopped; nothing was saved after the last checkpoint.", file=sys.stderr)
        return 130
    except BrokenPipeError:
        return 141


def _paragraph(error: UserError) -> str:
    if isinstance(error, ConfigError) and len(error.problems) > 1:
        lines = "\n".join(f"  {number}. {problem}" for number, problem in enumerate(error.problems, 1))
        return f"error: {len(error.problems)} problems\n{lines}"
    return f"error: {error}"


if __name__ == "__main__":
    raise SystemExit(main())
