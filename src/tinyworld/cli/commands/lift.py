"""`tinyworld lift VIDEO --base B --weights W --output DIR`: depth, points and cameras of footage."""

import argparse
from typing import TYPE_CHECKING

from tinyworld.cli.commands.generate import add_world_arguments, check_output, open_pipeline, write
from tinyworld.cli.paths import given_path
from tinyworld.core.errors import ConfigError, FramePlanError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tinyworld.media.read import VideoInfo

UNKNOWN_FPS = 16.0


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = commands.add_parser(
        "lift",
        help="depth, points, cameras and a coloured point cloud from a real video",
        allow_abbrev=False,
    )
    parser.add_argument("video", metavar="VIDEO", type=given_path, help="a video file")
    add_world_arguments(parser)
    parser.add_argument("--start", type=int, default=0, metavar="N", help="first frame that is taken; default: 0")
    parser.add_argument("--step", type=int, default=1, metavar="N", help="every Nth frame is taken; default: 1")
    parser.add_argument(
        "--frames", type=int, metavar="N", help="4k + 1; default: as in training, or as many as there are"
    )
    parser.add_argument("--height", type=int, metavar="N", help="a multiple of 16; default: as in training")
    parser.add_argument("--width", type=int, metavar="N", help="a multiple of 16; default: as in training")
    parser.add_argument("--sigma", type=float, default=0.1, metavar="X", help="share of noise, 0 to 1; default: 0.1")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of the noise; default: 0")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    from tinyworld.infer.world.pictures import fitted
    from tinyworld.media.read import probe, read_frames

    if options.weights is None:
        raise ConfigError("lift needs a geometry branch: give the weights of stage 1 or 2 (--weights).")
    check_output(options.output)
    info = probe(options.video)
    there = taken(info, options.start, options.step)
    pipeline = open_pipeline(options)
    count = chosen(len(there), options.frames, pipeline.clip[2])
    clip = pipeline.clip_of(options.height, options.width, count)
    if count < len(there):
        print(
            f"{count} of {len(there)} frames are taken; clips have 4k + 1, those of training {pipeline.clip[2]} (--frames)"
        )
    if (info.height, info.width) != (clip.height, clip.width):
        print(f"frames are cut and resized from {info.height} × {info.width} to {clip.height} × {clip.width}")
    frames = fitted(read_frames(options.video, there[:count]), clip.height, clip.width)
    fps = (info.fps or UNKNOWN_FPS) / options.step
    scene = pipeline.lift(frames, options.sigma, generator=options.seed, fps=fps)
    write(scene, options.output)
    print(f"wrote {options.output}: {count} frames of {scene.height} × {scene.width}, noise {scene.facts['sigma']:.3f}")
    return 0


def taken(info: "VideoInfo", start: int, step: int) -> "Sequence[int]":
    """The numbers of the frames that may be taken. Raises ConfigError for none."""
    if not 0 <= start < info.frames or step < 1:
        raise ConfigError(
            f"--start {start} --step {step}: {info.path} has frames 0 to {info.frames - 1}; --start must be one of them and "
            "--step at least 1."
        )
    return range(start, info.frames, step)


def chosen(available: int, asked: int | None, usual: int) -> int:
    """How many frames are taken: as asked for, or as many as the model is used to, as far as they are there.

    Raises FramePlanError for more than there are.
    """
    most = (available - 1) // 4 * 4 + 1
    if asked is None:
        return min(usual, most)
    if asked > available:
        raise FramePlanError(
            f"--frames {asked}, but from --start on the video has {available} (every --step th). Use at most {most}.",
            (most,),
        )
    return asked
