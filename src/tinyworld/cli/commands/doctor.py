"""`tinyworld doctor TEXT… | LOG | RUN | -`, `tinyworld doctor --log FILE`: names the cause of an error from its words."""

import argparse
import re
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from tinyworld.cli.paths import given_path
from tinyworld.core.errors import EXIT_USER_ERROR, ConfigError, MissingFileError

if TYPE_CHECKING:
    from tinyworld.doctor import Finding

WIDTH = 100
SHOWN = 300
"""Characters of a line that are shown: enough to recognise it."""
PATH_LIKE = re.compile(r"[^\s\0]*/[^\s\0]*|[^\s\0]+\.(?:log|txt)")
WHAT_TO_SEND = (
    "No known cause. What helps whoever looks into it: the command, `tinyworld --version`, the text from the first "
    '"Traceback" on (of every rank), and of a run its config.yaml, training.log and journal.jsonl; no videos, no weights.'
)


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = commands.add_parser(
        "doctor",
        help="name the cause of an error message, a log or a run, and what to do",
        description="Exit code 0 when a cause was found, 2 when none was.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "text",
        metavar="TEXT|LOG|RUN|-",
        nargs="*",
        help="an error message (in quotes), a log file, a run folder, or - for standard input",
    )
    parser.add_argument("--log", type=given_path, metavar="FILE", help="the same as LOG")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    from tinyworld.doctor import diagnose, examine
    from tinyworld.doctor.run_folder import read_end

    if bool(options.text) == (options.log is not None):
        raise ConfigError('Give one of these: an error message in quotes, a log, a run folder, "-", or --log FILE.')
    text = " ".join(options.text)
    if options.log is not None:
        return _report(diagnose(read_end(options.log), options.log.name))
    if text == "-":
        return _report(diagnose(sys.stdin.read()))
    if _exists(Path.is_file, text):
        return _report(diagnose(read_end(Path(text)), Path(text).name))
    if _exists(Path.is_dir, text):
        outcome, findings = examine(Path(text))
        print(f"{text}: {outcome}")
        return 0 if outcome.startswith("finished") and not findings else _report(findings)
    if PATH_LIKE.fullmatch(text):
        raise MissingFileError(
            f"No file or folder {text}. Name a log, a run folder such as output/<run>, or give a message in quotes."
        )
    return _report(diagnose(text))


def _exists(is_there: Callable[[Path], bool], text: str) -> bool:
    try:
        return is_there(Path(text))
    except (OSError, ValueError):  # a message may be longer than a path can be, or hold a null byte
        return False


def _report(findings: "list[Finding]") -> int:
    for number, finding in enumerate(findings, 1):
        recorded = f" (error {finding.cause.guide_error} of the guide)" if finding.cause.guide_error else ""
        evidence = finding.evidence if len(finding.evidence) <= SHOWN else finding.evidence[:SHOWN] + " …"
        print(_wrapped(f"{number}. ", f"{finding.cause.title}{recorded}"))
        print(_wrapped("   seen:   ", f"{finding.place}: {evidence}"))
        print(_wrapped("   why:    ", finding.why))
        print(_wrapped("   here:   ", finding.prevented))
        lines = finding.now.split("\n")
        print(_wrapped("   now:    ", lines[0]))
        print("".join(f"           {line.removeprefix('$ ')}\n" for line in lines[1:]))
    if not findings:
        print(textwrap.fill(WHAT_TO_SEND, WIDTH))
    return 0 if findings else EXIT_USER_ERROR


def _wrapped(label: str, text: str) -> str:
    return textwrap.fill(
        text,
        WIDTH,
        initial_indent=label,
        subsequent_indent=" " * len(label),
        break_on_hyphens=False,
        break_long_words=False,
    )
