"""Errors that tell a person what is wrong, what the rule is and what to do next.

Every kind inherits the standard exception a caller would expect, so code that does not know tinyworld can still catch
it. The command line prints `UserError` texts as one paragraph, without a traceback, and exits with `EXIT_USER_ERROR`.
"""

import errno
from pathlib import Path

EXIT_FAILED = 1
"""Something went wrong that the next try may not meet: a defect, a crash, storage that did not answer."""
EXIT_USER_ERROR = 2
"""The user can fix it: a wrong value, a missing file, bad data."""
EXIT_INTERRUPTED = 75
"""Stopped by a signal after a complete checkpoint was written: start again with the same command to go on (EX_TEMPFAIL)."""
EXIT_HUNG = 76
"""A process of the run died, or was late beyond its time-out and its stacks are in the run folder. A supervisor starts the
run again."""
EXIT_BROKEN_PIPE = 141
EXIT_STOPPED = 130
"""What a shell reports for a program that ended by Ctrl-C."""
MENDABLE = frozenset(
    {
        errno.EEXIST,
        errno.ENOTDIR,
        errno.EISDIR,
        errno.ENOENT,
        errno.EACCES,
        errno.EPERM,
        errno.EROFS,
        errno.ENAMETOOLONG,
    }
)
"""Errors of the operating system that name a path which the user has to change."""
DISK_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})


class UserError(Exception):
    """Something the user can mend. The message gives the value, the rule, the nearest valid values and the key to change.

    `passing`: it may be gone at the next try (a process that was killed, storage that did not answer), so that a supervisor
    may start again; the exit code is then EXIT_FAILED.
    """

    passing = False


class ConfigError(UserError, ValueError):
    """A configuration that cannot run. `problems` holds every problem found, not only the first."""

    def __init__(self, problems: list[str] | str) -> None:
        self.problems = [problems] if isinstance(problems, str) else list(problems)
        super().__init__("\n".join(self.problems))


class FramePlanError(UserError, ValueError):
    """A frame count that no exact plan exists for. `nearest` holds the nearest valid counts."""

    def __init__(self, message: str, nearest: tuple[int, ...] = ()) -> None:
        self.nearest = nearest
        super().__init__(message)


class DataError(UserError, ValueError):
    """Input data that cannot be used; names the file and the fault."""


class MissingFileError(UserError, FileNotFoundError):
    """A file or folder that is not there; names every place that was looked at."""


class WeightsError(UserError, ValueError):
    """A weight file that does not fit the architecture, or cannot be read safely."""


class CheckpointError(UserError, RuntimeError):
    """A checkpoint that is incomplete, damaged or of another run."""


class TrainingError(UserError, RuntimeError):
    """Training cannot go on: numbers that stay non-finite, a part that failed, a budget that is used up."""


class MissingExtraError(UserError, ImportError):
    """An optional dependency is not installed; names the extra that brings it."""


class ProcessLost(Exception):
    """Another process of the run died or does not answer; which one, as far as is known. Ends with `EXIT_HUNG`."""


class Interrupted(Exception):
    """Raised after a signal once everything is saved; names the run folder and the checkpoint to go on from."""

    def __init__(self, signal_name: str, folder: Path, checkpoint: Path) -> None:
        self.folder = folder
        super().__init__(f"stopped by {signal_name}; saved {checkpoint}")


def passing(error: UserError) -> UserError:
    """The error, marked as one that may be gone at the next try."""
    error.passing = True
    return error


def exit_code_of(error: BaseException) -> int:
    """The exit code of a program that ends with `error`."""
    match error:
        case Interrupted():
            return EXIT_INTERRUPTED
        case ProcessLost():
            return EXIT_HUNG
        case UserError():
            return EXIT_FAILED if error.passing else EXIT_USER_ERROR
        case BrokenPipeError():
            return EXIT_BROKEN_PIPE
        case OSError():
            named = error.filename is not None and error.errno in MENDABLE
            return EXIT_USER_ERROR if named or error.errno in DISK_FULL else EXIT_FAILED
        case KeyboardInterrupt():
            return EXIT_STOPPED
    return EXIT_FAILED


ELSEWHERE = "raised on another rank, which reports it"


def elsewhere(error: BaseException | None) -> BaseException:
    """The error of another rank, marked so that it is told to the user once and not by every process."""
    assert error is not None
    error.add_note(ELSEWHERE)
    return error


def is_elsewhere(error: BaseException) -> bool:
    """Whether another rank reports this error."""
    return ELSEWHERE in getattr(error, "__notes__", [])


def nearest_name(name: str, known: list[str]) -> str:
    """' Did you mean "x"?' for the known name closest to `name`, or an empty string when none is close."""
    import difflib

    match = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    return f' Did you mean "{match[0]}"?' if match else ""
