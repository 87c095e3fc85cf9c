"""`tinyworld generate --base B --weights W --output DIR`: a world from a prompt, a first frame, a camera path."""

import argparse
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tinyworld.cli.paths import given_path
from tinyworld.core.errors import ConfigError

if TYPE_CHECKING:
    from torch import Tensor

    from tinyworld.infer.world.pipeline import FantasyWorldPipeline
    from tinyworld.infer.world.scene import Scene

PREVIEWS = ("preview.png", "preview.mp4")
VIDEO = "video.mp4"


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = commands.add_parser(
        "generate",
        help="a world from a trained model: video, depth, points, cameras and a coloured point cloud",
        allow_abbrev=False,
    )
    add_world_arguments(parser)
    parser.add_argument("--prompt", default="", metavar="TEXT", help="what the world shows (needs --encoders)")
    parser.add_argument("--negative_prompt", default="", metavar="TEXT", help="what guidance leads away from")
    parser.add_argument("--image", type=given_path, metavar="FILE", help="first frame")
    _add_camera_arguments(parser)
    parser.add_argument("--frames", type=int, metavar="N", help="4k + 1; default: as in training")
    parser.add_argument("--height", type=int, metavar="N", help="a multiple of 16; default: as in training")
    parser.add_argument("--width", type=int, metavar="N", help="a multiple of 16; default: as in training")
    parser.add_argument("--steps", type=int, default=50, metavar="N", help="denoising steps; default: 50")
    parser.add_argument("--guidance", type=float, default=5.0, metavar="X", help="on the prompt; default: 5, 1 is none")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="equal seeds give equal worlds; default: 0")
    parser.add_argument("--fps", type=float, default=16.0, metavar="X", help="of the video; default: 16")
    parser.add_argument("--decoder", choices=("vae", "tiny"), default="vae", help="tiny: by --tiny_codec")
    parser.add_argument(
        "--preview_every",
        type=int,
        default=10,
        metavar="N",
        help="steps between looks at what is coming (preview.png and preview.mp4, where there is a TAEHV); 0: none",
    )
    parser.set_defaults(run=run)


def add_world_arguments(parser: argparse.ArgumentParser) -> None:
    """What `generate` and `lift` share: the model, where it computes, where the scene goes."""
    parser.add_argument(
        "--base", required=True, type=given_path, metavar="DIR|FILE", help="video transformer, or a run of video_base"
    )
    parser.add_argument(
        "--weights", type=given_path, metavar="DIR|FILE", help="geometry branch: a run, or a weight file"
    )
    parser.add_argument(
        "--codec", type=given_path, metavar="DIR", help="Wan VAE or TAEHV; default: the one the weights name"
    )
    parser.add_argument(
        "--tiny_codec", type=given_path, metavar="DIR|FILE", help="a TAEHV for --decoder tiny and previews"
    )
    parser.add_argument(
        "--encoders", type=given_path, metavar="DIR", help="text_encoder, tokenizer, image_encoder in diffusers' layout"
    )
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--dtype", choices=("fp32", "bf16"), help="default: bf16 on a GPU, fp32 on the CPU")
    parser.add_argument("--offload", action="store_true", help="keep in main memory what does not compute right now")
    parser.add_argument("--output", required=True, type=given_path, metavar="DIR", help="a folder for this scene alone")


def _add_camera_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--camera",
        metavar="FILE|PATH",
        help="camera file, or a path: orbit, dolly:0.3, pan:20deg, …, or words such as 'forward 0.5 right 20deg'",
    )
    parser.add_argument(
        "--camera_scale",
        type=float,
        default=1.0,
        metavar="X",
        help="metres of a camera file per unit of the scene; default: 1",
    )
    parser.add_argument("--camera_convention", choices=("w2c", "c2w"), help="of files of matrices alone")
    parser.add_argument("--camera_fov", type=float, metavar="DEG", help="of paths, across the longer side; default: 60")
    parser.add_argument("--camera_resample", action="store_true", help="let a file have another number of frames")


def run(options: argparse.Namespace) -> int:
    if options.preview_every < 0:
        raise ConfigError(f"--preview_every {options.preview_every} must be 0 (none) or more.")
    check_output(options.output, () if options.weights else (VIDEO,))
    _check_early(options)
    pipeline = open_pipeline(options)
    asked = _request(options)
    _warn_unsteered(pipeline, asked)
    if pipeline.parts.branch is None:
        return _video_alone(pipeline, options, asked)
    scene = _followed(pipeline, _with_bar(pipeline, options, asked))
    write(scene, options.output)
    facts = scene.facts
    print(
        f"wrote {options.output}: {len(scene.frames)} frames of {scene.height} × {scene.width}, seed {facts['seed']}; "
        f"{facts['steps']} steps in {facts['denoise_seconds']:.1f} s, decoded {facts['decoded_frames_per_second']:.1f} frames/s"
    )
    print(f"look: tinyworld view {shlex.quote(str(options.output))}")
    return 0


def open_pipeline(options: argparse.Namespace) -> "FantasyWorldPipeline":
    """The pipeline of the arguments, where they want it."""
    import torch

    from tinyworld.infer.world.pipeline import FantasyWorldPipeline

    if options.device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("--device cuda, but PyTorch sees no CUDA device here. Use --device cpu, or auto.")
    device = "cuda" if options.device != "cpu" and torch.cuda.is_available() else "cpu"
    name = options.dtype or ("bf16" if device == "cuda" else "fp32")
    pipeline = FantasyWorldPipeline.from_pretrained(
        options.base,
        options.weights,
        options.codec,
        options.encoders,
        {"fp32": torch.float32, "bf16": torch.bfloat16}[name],
        device,
        options.tiny_codec,
    )
    if options.offload:
        pipeline.enable_model_cpu_offload(device)
    return pipeline


def check_output(folder: Path, replaced: tuple[str, ...] = ()) -> None:
    """Find out before the work whether the scene can be written: a new folder, an empty one, or an older scene.

    replaced: files of such names may be there as well. Raises ConfigError.
    """
    names = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    scene = not replaced and "scene.json" in names
    if (folder.exists() and not folder.is_dir()) or (names - {*PREVIEWS, *replaced} and not scene):
        raise ConfigError(
            f"--output {folder}: there is something there that is not an earlier result, and it will not be replaced. Give the "
            "scene a folder of its own."
        )


def write(scene: "Scene", folder: Path) -> None:
    """The scene, in place of its previews."""
    from tinyworld.infer.world.scene import write_scene

    for name in PREVIEWS:
        (folder / name).unlink(missing_ok=True)
    write_scene(scene, folder)


def _check_early(options: argparse.Namespace) -> None:
    """Mistakes that need no model to be met: a picture or a camera that cannot be read."""
    from tinyworld.infer.world.camera_paths import cameras_for
    from tinyworld.infer.world.pictures import open_picture

    if options.image is not None:
        open_picture(options.image)
    if options.camera is not None and not Path(options.camera).is_file():
        cameras_for(options.camera, 1, 16, 16)


def _request(options: argparse.Namespace) -> dict[str, Any]:
    camera: dict[str, Any] = {"resample": options.camera_resample}
    if options.camera_convention is not None:
        camera["convention"] = options.camera_convention
    if options.camera_fov is not None:
        camera["fov_degrees"] = options.camera_fov
    return {
        "prompt": options.prompt,
        "negative_prompt": options.negative_prompt,
        "image": options.image,
        "camera": options.camera,
        "num_frames": options.frames,
        "height": options.height,
        "width": options.width,
        "num_inference_steps": options.steps,
        "guidance_scale": options.guidance,
        "generator": options.seed,
        "decoder": options.decoder,
        "camera_scale": options.camera_scale,
        "camera_options": camera,
        "fps": options.fps,
    }


def _warn_unsteered(pipeline: "FantasyWorldPipeline", asked: dict[str, Any]) -> None:
    """Say that a camera that moves cannot steer the video of stage 1's weights. Raises as reading the camera."""
    import torch

    from tinyworld.core.console import LOGGER
    from tinyworld.infer.world.requests import cameras_of

    info = pipeline.parts.info
    if asked["camera"] is None or info is None or info.stage != "stage1":
        return
    clip = pipeline.clip_of(asked["height"], asked["width"], asked["num_frames"])
    path = cameras_of(asked["camera"], clip, asked["camera_scale"], asked["camera_options"]).extrinsics
    if not torch.allclose(path, path[:1].expand_as(path)):
        LOGGER.warning(
            "--weights are of stage 1, in which no camera steers the video (--camera): only stage 2 does that"
        )


def _with_bar(pipeline: "FantasyWorldPipeline", options: argparse.Namespace, asked: dict[str, Any]) -> Any:
    from tinyworld.core.console import counting

    every = options.preview_every if pipeline.has_tiny else 0
    with counting("denoising") as move:

        def on_step_end(pipe: "FantasyWorldPipeline", step: int, timestep: "Tensor", told: "dict[str, Tensor]") -> None:
            move(step + 1, options.steps)
            if every and (step + 1) % every == 0 and step + 1 < options.steps:
                _write_preview(pipe, told["estimate"], options)

        return pipeline(**asked, callback_on_step_end=on_step_end)


def _write_preview(pipe: "FantasyWorldPipeline", estimate: "Tensor", options: argparse.Namespace) -> None:
    from tinyworld.infer.world.pictures import to_pictures
    from tinyworld.media.png import write_png
    from tinyworld.media.write import write_video

    frames = to_pictures(pipe.decode(estimate, "tiny"))[0]
    write_png(options.output / PREVIEWS[0], frames[len(frames) // 2])
    write_video(options.output / PREVIEWS[1], frames, options.fps)


def _followed(pipeline: "FantasyWorldPipeline", scene: "Scene") -> "Scene":
    """Where cameras were asked for, the scene with what its video makes of them among its facts; printed."""
    from dataclasses import replace

    from tinyworld.infer.world.following import asked_cameras, following

    cameras = asked_cameras(scene)
    if cameras is None or len(scene.frames) < 2:
        return scene
    found = following(pipeline, scene, cameras)
    print(
        "camera, as the model sees it in the video without being told: "
        f"off by {found['ate']:.4f} units (ATE), {found['rpe_rotation']:.2f}° per frame; AUC@30 {found['auc30']:.3f}"
    )
    return replace(scene, facts={**scene.facts, "follows": found})


def _video_alone(pipeline: "FantasyWorldPipeline", options: argparse.Namespace, asked: dict[str, Any]) -> int:
    from tinyworld.core.console import LOGGER
    from tinyworld.media.write import write_video

    LOGGER.warning("no --weights: the video transformer alone makes a video, without depth, points and cameras")
    frames = _with_bar(pipeline, options, {**asked, "output_type": "video"})
    for name in PREVIEWS:
        (options.output / name).unlink(missing_ok=True)
    write_video(options.output / VIDEO, frames, options.fps)
    print(f"wrote {options.output / VIDEO}: {len(frames)} frames of {frames.shape[1]} × {frames.shape[2]}")
    return 0
