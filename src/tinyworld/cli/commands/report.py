"""`tinyworld report RUN…`: a page of one run, or one that compares several."""

import argparse

from tinyworld.cli.paths import check_writable, given_path


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    what = "write one self-contained HTML page about a run, or one that compares several"
    parser = commands.add_parser("report", help=what, allow_abbrev=False)
    parser.add_argument(
        "folders",
        metavar="RUN",
        nargs="+",
        type=given_path,
        help="a run folder, such as output/demo; several are compared",
    )
    parser.add_argument(
        "--output",
        metavar="FILE",
        type=given_path,
        help="where the page is written; default: report.html in the run's folder, or report-compare.html in the folder that the "
        "runs share",
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    from tinyworld.report import build_comparison, build_report

    if options.output is not None:
        check_writable(options.output, "--output")
    if len(options.folders) == 1:
        print(build_report(options.folders[0], options.output))
    else:
        print(build_comparison(options.folders, options.output))
    return 0
