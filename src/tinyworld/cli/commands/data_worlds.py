"""`tinyworld data verify` and `tinyworld data prepare`: clips with depth and cameras."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from tinyworld.cli.paths import check_writable, given_path

if TYPE_CHECKING:
    from tinyworld.data.worlds.prepare import Recording, Selection

SOURCES = {
    "tum": "a TUM RGB-D sequence (rgb.txt, depth.txt, groundtruth.txt), or a folder of them",
    "7scenes": "a 7-Scenes sequence (frame-000000.color.png, …), or a scene with several",
    "re10k": "RealEstate10K camera lists and the videos they name; such samples have no depth",
}


def add_parsers(actions: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `verify` and `prepare` to the actions of `tinyworld data`."""
    verify = actions.add_parser(
        "verify",
        help="check that pictures, depth and cameras of each sample belong together, and say what is wrong",
        allow_abbrev=False,
    )
    verify.add_argument("folder", metavar="DIR", type=given_path, help="a data set: metadata.json and sample folders")
    verify.add_argument("--dataset_metadata_path", type=given_path, metavar="FILE", help="instead of DIR/metadata.json")
    verify.add_argument("--json", type=given_path, metavar="FILE", help="write all numbers there")
    verify.add_argument(
        "--picture", type=given_path, metavar="FILE.png", help="draw a row of pictures per sample there"
    )
    verify.add_argument("--pairs", type=_count, default=12, help="pairs of frames compared per sample (default 12)")
    _add_intrinsics(verify, "--camera_intrinsics", "of camera files without: ")
    verify.add_argument(
        "--camera_convention",
        choices=("w2c", "c2w"),
        help="what the matrices of camera files are (default: what the form of the file says)",
    )
    verify.set_defaults(run=verify_folder)
    prepare = actions.add_parser(
        "prepare", help="write recordings of other data sets in the layout that training reads", allow_abbrev=False
    )
    sources = prepare.add_subparsers(dest="source", metavar="SOURCE", required=True)
    for name, words in SOURCES.items():
        _add_source(sources.add_parser(name, help=words, allow_abbrev=False), name)


def _add_source(parser: argparse.ArgumentParser, name: str) -> None:
    if name == "re10k":
        parser.add_argument("folder", metavar="CAMERAS_DIR", type=given_path, help="the lists, one text file per clip")
        parser.add_argument("videos", metavar="VIDEOS_DIR", type=given_path, help="videos named by their ids")
    else:
        parser.add_argument("folder", metavar="FOLDER", type=given_path, help=SOURCES[name])
        _add_intrinsics(parser, "--intrinsics", "instead of the published ones: ")
    parser.add_argument("out", metavar="OUT", type=given_path, help="the new data set; complete or absent")
    parser.add_argument("--height", type=int, help="pixels (default: as the source, or from --width)")
    parser.add_argument("--width", type=int, help="pixels (default: as the source, or from --height)")
    parser.add_argument("--step", type=int, default=1, help="take every so many frames (default 1)")
    parser.add_argument("--max_frames", type=int, help="frames per sample at most (default: all)")
    parser.set_defaults(run=prepare_folder)


def _add_intrinsics(parser: argparse.ArgumentParser, name: str, words: str) -> None:
    parser.add_argument(
        name,
        dest="intrinsics",
        type=float,
        nargs=4,
        metavar=("FX", "FY", "CX", "CY"),
        help=f"{words}in pixels, pixel centres at whole numbers",
    )


def _count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError("1 or more")
    return value


def verify_folder(options: argparse.Namespace) -> int:
    """Exit code 2 when a sample is bad."""
    from tinyworld.core.console import counting
    from tinyworld.core.errors import EXIT_USER_ERROR
    from tinyworld.data.worlds.verify import verify_worlds
    from tinyworld.data.worlds.verify_report import table, write_numbers, write_picture

    for key, file in (("--json", options.json), ("--picture", options.picture)):
        if file is not None:
            check_writable(file, key)
    with counting("verifying samples") as on_progress:
        verdicts = verify_worlds(
            options.folder,
            options.dataset_metadata_path,
            pairs=options.pairs,
            convention=options.camera_convention,
            intrinsics=_four(options.intrinsics),
            draw=options.picture is not None,
            on_progress=on_progress,
        )
    print(table(verdicts))
    if options.json is not None:
        write_numbers(options.json, verdicts)
    if options.picture is not None:
        drawn = write_picture(options.picture, verdicts)
        print(
            f"{options.picture}: {drawn} samples"
            if drawn
            else f"{options.picture}: not written, no sample can be drawn"
        )
    return EXIT_USER_ERROR if any(verdict.verdict == "bad" for verdict in verdicts) else 0


def prepare_folder(options: argparse.Namespace) -> int:
    from tinyworld.core.console import counting
    from tinyworld.data.worlds.prepare import Selection, prepare

    selection = Selection(options.step, options.max_frames)
    recordings = _recordings(options, selection)
    with counting("writing samples") as on_progress:
        said = prepare(recordings, options.out, options.height, options.width, on_progress)
    print("\n".join(said))
    without = [recording for recording in recordings if not recording.has_depth]
    if without:
        print(f"{len(without)} samples have no depth; training needs depth/ in each of them")
    print(f"{len(recordings)} samples: {options.out}. Check them: tinyworld data verify {options.out}")
    return 0


def _recordings(options: argparse.Namespace, selection: "Selection") -> "list[Recording]":
    folder: Path = options.folder
    if options.source == "re10k":
        from tinyworld.data.worlds.re10k import read_re10k

        return read_re10k(folder, options.videos, selection)
    intrinsics = _four(options.intrinsics)
    if options.source == "tum":
        from tinyworld.data.worlds.tum import read_tum

        return read_tum(folder, selection, intrinsics)
    from tinyworld.data.worlds.seven_scenes import read_seven_scenes

    return read_seven_scenes(folder, selection, intrinsics)


def _four(values: list[float] | None) -> tuple[float, float, float, float] | None:
    return None if values is None else (values[0], values[1], values[2], values[3])
