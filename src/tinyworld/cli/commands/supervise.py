"""`tinyworld supervise RECIPE`: train, and start again after a crash, a hang or a kill, until the run is finished."""

import argparse
import math
import os
import shlex
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from tinyworld.cli.flags import parse_overrides
from tinyworld.cli.recipe_arguments import add_recipe_parser
from tinyworld.config.load import load_recipe
from tinyworld.core.errors import ConfigError

if TYPE_CHECKING:
    from tinyworld.config.schema import Recipe

Flags = dict[str, str | bool]
PROCESSES = "NUM_GPUS"
MOST_PROCESSES = 1024
ABOUT = """\
Trains as `tinyworld train` does and takes every flag of it. After a crash, a hang or a kill the run goes on from its
newest good checkpoint: after a pause that doubles up to 10 min and begins anew with each new checkpoint; the third
end in a row by the same cause, without a checkpoint between, ends it. SIGTERM and Ctrl-C are passed on once.
Exit code: 0 finished, 2 something you can mend, 75 stopped by a signal after saving, 1 given up.

  --processes N       processes on this machine, one per GPU [default: $NUM_GPUS, else 1]
  --pause SECONDS     before the first restart [default 10]
  --launcher COMMAND  words in front of the training command that start it on every process, such as "srun"
  --run_name NAME     goes on with this run where it is; unset: a new one, kept over all restarts
"""


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    more = " [--processes N] [--pause SECONDS] [--launcher COMMAND]"
    add_recipe_parser(commands, "supervise", run, help="train, and start again whenever it ends too early", more=more)
    commands.choices["supervise"].description = ABOUT


def run(options: argparse.Namespace) -> int:
    from tinyworld.core.goodput import measure, table
    from tinyworld.core.journal_lines import JOURNAL, read_lines
    from tinyworld.supervisor import Job, supervise

    flags = parse_overrides(options.overrides)
    launcher = _text(flags, "launcher")
    processes = _processes(flags, launcher)
    pause = _pause(flags)
    recipe = load_recipe(options.recipe, flags)
    begin_from = _begin_from(recipe)
    folder = _run_folder(recipe)
    command = [*shlex.split(launcher or ""), sys.executable, "-m", "tinyworld", "train", options.recipe]
    command += [*_flags(flags), f"--run_name={folder.name}"]
    code = supervise(Job(folder, command, processes, begin_from, pause))
    if (folder / JOURNAL).is_file():
        print(table(measure(read_lines(folder / JOURNAL)[0])))
    return code


def _text(flags: Flags, name: str) -> str | None:
    value = flags.pop(name, None)
    if value is True:
        raise ConfigError(f"--{name} needs a value, as in --{name} srun.")
    return str(value) if value else None


def _processes(flags: Flags, launcher: str | None) -> int:
    """Processes to start here, from the flag or else from the guides' variable."""
    source = "--processes" if "processes" in flags else PROCESSES
    given = flags.pop("processes", None)
    if launcher and given is not None:
        raise ConfigError("--processes and --launcher exclude each other: the launcher starts the processes itself.")
    if launcher:
        return 1
    value = given if given is not None else os.environ.get(PROCESSES) or "1"
    if value is True or not str(value).isdecimal() or not 1 <= int(value) <= MOST_PROCESSES:
        shown = "a flag alone" if value is True else repr(value)
        raise ConfigError(f"{source} is {shown}; it must be a whole number from 1 to {MOST_PROCESSES}, one per GPU.")
    return int(value)


def _pause(flags: Flags) -> float:
    value = flags.pop("pause", "10")
    try:
        seconds = float(value) if value is not True else math.nan
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds <= 600:
        raise ConfigError(
            f"--pause is {'a flag alone' if value is True else repr(value)}; it must be 0 to 600 seconds."
        )
    return seconds


def _begin_from(recipe: "Recipe") -> str | None:
    """The checkpoint of another run to branch off from, as a path; None: only the run's own count."""
    wanted = recipe.checkpoint.resume_from_checkpoint
    if wanted is None or (wanted == "latest" and recipe.run.run_name):
        return None
    if not recipe.run.run_name:
        raise ConfigError(
            f"resume_from_checkpoint is {wanted}, and supervise must know the run that goes on: give its --run_name, "
            "or a new one to branch off."
        )
    if wanted.startswith("checkpoint-") and wanted.removeprefix("checkpoint-").isdecimal():
        raise ConfigError(
            f"resume_from_checkpoint is {wanted}, and supervise goes on from the newest checkpoint at every start. Give "
            "latest; or a new --run_name and the path of the checkpoint to branch off from."
        )
    return wanted


def _run_folder(recipe: "Recipe") -> Path:
    output = Path(recipe.run.output_dir).expanduser().resolve()
    name = recipe.run.run_name or f"{recipe.name}-{time.strftime('%Y%m%d-%H%M%S')}"
    count = 1
    folder = output / name
    while recipe.run.run_name is None and folder.exists():
        count += 1
        folder = output / f"{name}-{count}"
    return folder


def _flags(flags: Flags) -> list[str]:
    """The flags of train again, without the two that the supervisor sets."""
    kept = {key: value for key, value in flags.items() if key.rpartition(".")[2] not in _SET_HERE}
    return [f"--{key}" if value is True else f"--{key}={value}" for key, value in kept.items()]


_SET_HERE = ("run_name", "resume_from_checkpoint")
