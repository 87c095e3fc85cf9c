"""The entry point of `tinyworld`. Nothing heavy is imported here, so that Ctrl-C is met from the first moment on."""

import sys
from collections.abc import Sequence

EXIT_STOPPED = 130
"""What a shell reports for a program that ended by Ctrl-C."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code: 0, 2 for a mistake of the user, 75 when stopped after saving."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        from tinyworld.cli.dispatch import run_command

        return run_command(arguments)
    except KeyboardInterrupt:
        command = next((argument for argument in arguments if argument != "--debug"), "")
        trains = command in ("train", "demo")
        print("\nstopped; nothing was saved after the last checkpoint." if trains else "\nstopped.", file=sys.stderr)
        return EXIT_STOPPED


if __name__ == "__main__":
    raise SystemExit(main())
