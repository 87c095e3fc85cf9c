"""The entry point of `tinyworld`. Nothing heavy is imported here, so that Ctrl-C is met from the first moment on."""

import os
import sys
import traceback
from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code: 0, 2 for a mistake of the user, 75 when stopped after saving."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        from tinyworld.cli.dispatch import run_command

        if "RANK" not in os.environ:
            return run_command(arguments)
        try:
            code = run_command(arguments)
        except Exception:  # noqa: BLE001 - printed as Python would, and then left in the way of processes of a run
            traceback.print_exc()
            code = 1
        return _leave(code)
    except KeyboardInterrupt:
        from tinyworld.core.errors import EXIT_STOPPED

        command = next((argument for argument in arguments if argument != "--debug"), "")
        trains = command in ("train", "demo")
        print("\nstopped; nothing was saved after the last checkpoint." if trains else "\nstopped.", file=sys.stderr)
        return EXIT_STOPPED


def _leave(code: int) -> int:
    """End one of several processes. What torch's collectives leave running aborts an orderly exit now and then (SIGABRT after
    all work is done), and a supervisor would take that for a crash."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    raise SystemExit(main())
