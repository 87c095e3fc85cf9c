"""`tinyworld evaluate fantasy PATH… --base B --weights W`: geometry of a world beside labels, without labels, and how well
it follows cameras."""

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tinyworld.cli.commands.generate import open_pipeline
from tinyworld.cli.paths import check_writable, given_path
from tinyworld.cli.world_footage import Windows, kind_of, labelled_windows, video_windows
from tinyworld.core.errors import EXIT_USER_ERROR, ConfigError, DataError, FramePlanError, MissingFileError

if TYPE_CHECKING:
    import numpy as np

    from tinyworld.core.geometry import Cameras
    from tinyworld.infer.world.pipeline import FantasyWorldPipeline
    from tinyworld.infer.world.tally import Outcome

WORD = "fantasy"
OWN = "own"
"""Among camera paths: those that the clips of a data set were filmed with."""
CAVEAT = (
    "A constant depth before a camera that stands still would agree with itself perfectly: read depths beside colours."
)


def make_parser(prog: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=prog,
        allow_abbrev=False,
        description="Depth, points and cameras against labels (data sets, runs), or without (scenes, videos); --follow: how "
        "well cameras that are asked for are followed.",
    )
    parser.add_argument(
        "paths",
        metavar="PATH",
        nargs="*",
        type=given_path,
        help="data sets; runs, whose held-out samples are taken; scenes written by generate or lift; videos",
    )
    _add_model_arguments(parser)
    parser.add_argument(
        "--sigma", type=float, nargs="+", default=[0.1], metavar="X", help="shares of noise of lifting; default: 0.1"
    )
    parser.add_argument(
        "--windows",
        type=int,
        default=1,
        metavar="N",
        help="of each clip or video, evenly spread; default: 1, its middle",
    )
    parser.add_argument(
        "--step", type=int, metavar="N", help="every Nth frame is taken; default: 1, of a run's samples as in training"
    )
    for name, words in (("frames", "4k + 1"), ("height", "a multiple of 16"), ("width", "a multiple of 16")):
        parser.add_argument(f"--{name}", type=int, metavar="N", help=f"{words}; default: as in training")
    parser.add_argument("--max_clips", type=int, metavar="N", help="only the first N clips of each data set or run")
    parser.add_argument(
        "--follow",
        nargs="*",
        metavar="CAMERA",
        help="generate with and without camera input, from the first frames of the PATHs, if any, and measure how well these "
        f"camera paths are followed; {OWN}: those of the clips of a data set; default: orbit dolly truck pan",
    )
    parser.add_argument("--seeds", type=int, default=4, metavar="N", help="of --follow, for each path; default: 4")
    parser.add_argument("--steps", type=int, default=50, metavar="N", help="denoising steps of --follow; default: 50")
    parser.add_argument("--json", type=given_path, metavar="FILE", help="also write the numbers of all clips here")
    parser.set_defaults(run=run)
    return parser


def _add_model_arguments(parser: argparse.ArgumentParser) -> None:
    """Those of `generate`, but that scenes need no model."""
    parser.add_argument("--base", type=given_path, metavar="DIR|FILE", help="video transformer, or a run of video_base")
    parser.add_argument(
        "--weights", type=given_path, metavar="DIR|FILE", help="geometry branch: a run, or a weight file"
    )
    parser.add_argument("--codec", type=given_path, metavar="DIR", help="default: the one the weights name")
    parser.add_argument("--encoders", type=given_path, metavar="DIR", help="for models with text or CLIP")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--dtype", choices=("fp32", "bf16"), help="default: bf16 on a GPU, fp32 on the CPU")
    parser.add_argument("--offload", action="store_true", help="keep in main memory what does not compute right now")
    parser.set_defaults(tiny_codec=None)


def run(options: argparse.Namespace) -> int:
    from tinyworld.core.files import write_json

    if options.json is not None:
        check_writable(options.json, "--json")
    kinds = {path: kind_of(path) for path in options.paths}
    _check(options, set(kinds.values()))
    pipeline = None if options.base is None else open_pipeline(options)
    told: dict[str, Any] = {"base": str(options.base), "weights": str(options.weights)}
    if options.follow is not None:
        assert pipeline is not None
        told["follow"] = _follow(options, pipeline)
        failed = 0
    else:
        labelled = [path for path, kind in kinds.items() if kind in ("run", "set")]
        others = [path for path, kind in kinds.items() if kind in ("scene", "video")]
        if labelled:
            assert pipeline is not None
            told["with_truth"] = _with_truth(options, pipeline, labelled)
        told["without_truth"], failed = _without_truth(options, pipeline, others) if others else (None, 0)
    if options.json is not None:
        write_json(options.json, {key: value for key, value in told.items() if value is not None})
    return EXIT_USER_ERROR if failed else 0


def _check(options: argparse.Namespace, kinds: set[str]) -> None:
    """Mistakes that need no model to be met."""
    from tinyworld.infer.world.camera_paths import cameras_for
    from tinyworld.infer.world.schedule import nearest_level

    if options.follow is None and not options.paths:
        raise ConfigError(
            "evaluate fantasy needs something to look at: a data set, a run, a scene or a video, or --follow alone."
        )
    if (options.base is None or options.weights is None) and (options.follow is not None or kinds - {"scene"}):
        raise ConfigError("Give the model: a video transformer (--base) and a geometry branch (--weights).")
    for name, value in (("--seeds", options.seeds), ("--steps", options.steps)):
        if value < 1:
            raise ConfigError(f"{name} {value} must be at least 1.")
    for sigma in options.sigma:
        nearest_level(sigma)
    for camera in options.follow or ():
        if camera != OWN:
            cameras_for(camera, 1, 16, 16)
    if OWN in (options.follow or ()) and not kinds & {"run", "set"}:
        raise ConfigError(f"--follow {OWN} takes the cameras of a data set's clips: give a data set or a run.")


def _wanted(options: argparse.Namespace, pipeline: "FantasyWorldPipeline") -> Windows:
    clip = pipeline.clip_of(options.height, options.width, options.frames)
    return Windows(clip, options.step, options.windows, options.max_clips)


def _with_truth(options: argparse.Namespace, pipeline: "FantasyWorldPipeline", paths: Sequence[Path]) -> dict[str, Any]:
    from tinyworld.cli.world_tables import each_clip, summary
    from tinyworld.infer.world.evaluate import MEDIAN, NAMES, judged
    from tinyworld.infer.world.tally import as_json, tally, unit_of
    from tinyworld.infer.world.without_truth import STILL

    wanted = _wanted(options, pipeline)
    found: dict[str, dict[str, Any]] = {}
    by_sigma: dict[float, list[Outcome]] = {sigma: [] for sigma in options.sigma}
    for path in paths:
        for truth in labelled_windows(path, wanted):
            for sigma, outcomes in by_sigma.items():
                outcomes.append(judged(pipeline, truth, sigma))
    for sigma, outcomes in by_sigma.items():
        clips = len({outcome.id for outcome in outcomes})
        print(
            f"\n{clips} labelled clips, {len(outcomes)} windows, {_size(wanted)}; lifted without their cameras at noise {sigma:g}"
            f"; intervals over {unit_of(outcomes)}"
        )
        print(summary(tally(outcomes, NAMES)))
        print(f"\n  each clip (first frame): model / {MEDIAN} or {STILL}")
        print(each_clip(outcomes, ("abs_rel", "delta1", "point_error", "ate", "auc30"), (MEDIAN, STILL)))
        found[f"{sigma:g}"] = as_json(outcomes, NAMES)
    return found


def _without_truth(
    options: argparse.Namespace, pipeline: "FantasyWorldPipeline | None", paths: Sequence[Path]
) -> tuple[dict[str, Any] | None, int]:
    """The numbers, and how many paths could not be read."""
    from tinyworld.cli.world_tables import each_clip, summary
    from tinyworld.infer.world.tally import as_json, tally, unit_of
    from tinyworld.infer.world.without_truth import FLAT, NAMES, STILL

    outcomes: list[Outcome] = []
    failed = 0
    for path in paths:
        try:
            outcomes += _look(options, pipeline, path)
        except (DataError, MissingFileError, FramePlanError) as error:
            print(f"error: {error}", file=sys.stderr)
            failed += 1
    if not outcomes:
        return None, failed
    print(f"\n{len(outcomes)} scenes without labels; intervals over {unit_of(outcomes)}")
    print(summary(tally(outcomes, NAMES)))
    print(f"  {CAVEAT}")
    print(f"\n  each scene: model / {STILL}")
    print(each_clip(outcomes, ("depth_agreement", "colour_agreement", "colour_flicker", "ate", "auc30"), (STILL, FLAT)))
    return as_json(outcomes, NAMES), failed


def _look(options: argparse.Namespace, pipeline: "FantasyWorldPipeline | None", path: Path) -> "list[Outcome]":
    """A scene, or the windows of a video at each noise level."""
    from tinyworld.infer.world.scene import read_scene
    from tinyworld.infer.world.without_truth import judged_alone

    if kind_of(path) == "scene":
        model = pipeline if pipeline is not None and pipeline.parts.branch is not None else None
        return [judged_alone(read_scene(path), str(path), "scene", model)]
    assert pipeline is not None
    return [
        judged_alone(pipeline.lift(frames, sigma, generator=start), str(path), f"{start}, noise {sigma:g}")
        for start, frames in video_windows(path, _wanted(options, pipeline))
        for sigma in options.sigma
    ]


def _follow(options: argparse.Namespace, pipeline: "FantasyWorldPipeline") -> dict[str, Any]:
    from tinyworld.cli.world_tables import each_clip, summary
    from tinyworld.core.console import counting
    from tinyworld.infer.world.evaluate import PATHS, WITHOUT, followed
    from tinyworld.infer.world.tally import as_json, tally
    from tinyworld.infer.world.without_truth import FOLLOWED

    wanted = _wanted(options, pipeline)
    names = tuple(options.follow) or PATHS
    openings = _openings(options, wanted, options.seeds)
    request = {
        "num_frames": wanted.clip.frames,
        "height": wanted.clip.height,
        "width": wanted.clip.width,
        "num_inference_steps": options.steps,
    }
    jobs = [(name, seed) for name in names for seed in range(options.seeds)]
    outcomes = []
    with counting("generating") as move:
        for done, (name, seed) in enumerate(jobs, start=1):
            picture, cameras = openings[seed % len(openings)] if openings else (None, None)
            path = cameras if name == OWN else name
            assert path is not None
            found = followed(pipeline, path, f"{name}, seed {seed}", seed, {**request, "image": picture})
            outcomes.append(found)
            move(done, len(jobs))
    begun = f"{len(openings)} first frames" if openings else "no first frame"
    print(
        f"\n{len(names)} camera paths × {options.seeds} seeds, {_size(wanted)}, {options.steps} steps, {begun}: cameras that the "
        "model sees in its own video, told nothing, against those asked for"
    )
    print(summary(tally(outcomes, FOLLOWED)))
    print(f"\n  each path: camera given / {WITHOUT}")
    print(each_clip(outcomes, ("ate", "rpe_rotation", "auc30", "colour_as_asked"), (WITHOUT,)))
    return as_json(outcomes, FOLLOWED)


def _openings(options: argparse.Namespace, wanted: Windows, most: int) -> "list[tuple[np.ndarray, Cameras | None]]":
    """First frames, with the cameras of their clips where these are known: at most `most`."""
    from tinyworld.infer.world.pictures import fitted
    from tinyworld.infer.world.scene import read_scene

    size = wanted.clip.height, wanted.clip.width
    found: list[tuple[np.ndarray, Cameras | None]] = []
    readers: dict[str, Callable[[Path], Any]] = {
        "scene": lambda path: [(fitted(read_scene(path).frames[:1], *size)[0], None)],
        "video": lambda path: [(frames[0], None) for _, frames in video_windows(path, wanted)],
    }
    for path in options.paths:
        read = readers.get(kind_of(path))
        if read is not None:
            found += read(path)
            continue
        for truth in labelled_windows(path, wanted):
            found.append((truth.frames[0], truth.cameras))
            if len(found) == most:
                return found
    return found[:most]


def _size(wanted: Windows) -> str:
    return f"{wanted.clip.frames} frames of {wanted.clip.height} × {wanted.clip.width}"
