"""The entry point of `tinyworld`. Nothing heavy is imported here, so that Ctrl-C is met from the first moment on."""

import os
import sys
from collections.abc import Sequence

EXIT_STOPPED = 130
"""What a shell reports for a program that ended by Ctrl-C."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code: 0, 2 for a mistake of the user, 75 when stopped after saving."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        from tinyworld.cli.dispatch import run_command

        code = run_command(arguments)
        if "RANK" in os.environ:
            _leave(code)
        return code
    except KeyboardInterrupt:
        command = next((argument for argument in arguments if argument != "--debug"), "")
        trains = command in ("train", "demo")
        print("\nstopped; nothing was saved after the last checkpoint." if trains else "\nstopped.", file=sys.stderr)
        return EXIT_STOPPED


def _leave(code: int) -> None:
    """End one of several processes. What torch's collectives leave running aborts an orderly exit now and then (SIGABRT after
    all work is done), and a supervisor would take that for a crash."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    raise SystemExit(main())
