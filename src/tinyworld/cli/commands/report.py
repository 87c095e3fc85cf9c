"""`tinyworld report RUN`."""

import argparse

from tinyworld.cli.paths import given_path


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = commands.add_parser("report", help="write one self-contained HTML page about a run", allow_abbrev=False)
    parser.add_argument("folder", metavar="RUN", type=given_path, help="a run folder, such as output/demo")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    from tinyworld.report import build_report

    print(build_report(options.folder))
    return 0
