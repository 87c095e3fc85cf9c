"""What is done for a job, in the process that has the models."""

import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch
from PIL import Image, UnidentifiedImageError

from tinyworld.core.errors import ConfigError, DataError, FramePlanError, UserError
from tinyworld.core.files import find
from tinyworld.infer.reconstruct import reconstruct_video
from tinyworld.infer.world.camera_paths import path_of_text
from tinyworld.infer.world.pictures import fitted, open_picture
from tinyworld.infer.world.pipeline import FPS, FantasyWorldPipeline
from tinyworld.infer.world.scene import Scene, write_scene
from tinyworld.media.container import libav_errors
from tinyworld.media.read import VideoInfo, probe, read_frames
from tinyworld.media.write import write_video
from tinyworld.models.taehv import Taehv
from tinyworld.service.abilities import Abilities
from tinyworld.service.jobs import FILES, UPLOAD
from tinyworld.service.limits import Limits
from tinyworld.service.requests import PICTURE_KINDS, VIDEO_KINDS
from tinyworld.service.worker import Outcome, Report, Work

CONTAINERS = "mov,matroska,webm,avi,mpegts,mpeg"
"""libav's names of containers that hold their data themselves. The other kind, playlists, would have it open other files."""
PICTURES = ("PNG", "JPEG", "WEBP")
SCENE = "scene"
APART = ("video.mp4", "depth.mp4", "cloud.ply")
"""Of a scene's folder, what can be fetched apart; all of it is in scene.zip."""
NUMBERS = {"fp32": torch.float32, "bf16": torch.bfloat16}


@dataclass(frozen=True)
class Models:
    """What the command line names. Paths; None: not given. device: cpu, cuda, or auto. dtype: of worlds; None: as usual there."""

    model: Path | None = None
    base: Path | None = None
    weights: Path | None = None
    codec: Path | None = None
    encoders: Path | None = None
    device: str = "auto"
    dtype: str | None = None
    offload: bool = False


def open_models(models: Models, limits: Limits) -> tuple[Work, Abilities]:
    """Open what is named. Raises MissingFileError, WeightsError, ConfigError, MissingExtraError."""
    if models.device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("--device cuda, but PyTorch sees no CUDA device here. Use --device cpu, or auto.")
    device = "cuda" if models.device != "cpu" and torch.cuda.is_available() else "cpu"
    taehv = None
    if models.model is not None:
        taehv = Taehv.from_pretrained(find(models.model, what="model", key="--model")).eval().requires_grad_(False)
        taehv = taehv.to(device)
    pipeline = None if models.base is None else _open_pipeline(models, device)
    studio = _Studio(taehv, pipeline, limits)
    return studio.work, studio.abilities()


def _open_pipeline(models: Models, device: str) -> FantasyWorldPipeline:
    assert models.base is not None
    dtype = NUMBERS[models.dtype or ("bf16" if device == "cuda" else "fp32")]
    pipeline = FantasyWorldPipeline.from_pretrained(
        models.base, models.weights, models.codec, models.encoders, dtype, device
    )
    if models.offload:
        pipeline.enable_model_cpu_offload(device)
    return pipeline


@dataclass(frozen=True)
class _Studio:
    taehv: Taehv | None
    pipeline: FantasyWorldPipeline | None
    limits: Limits

    def abilities(self) -> Abilities:
        reasons = {}
        if self.taehv is None:
            reasons["reconstruct"] = "This service has no video autoencoder (it was started without --model)."
        if self.pipeline is None:
            reasons["generate"] = reasons["lift"] = "This service has no world model (it was started without --base)."
            return Abilities(reasons, None, False, False)
        parts = self.pipeline.parts
        if parts.branch is None:
            reasons["lift"] = (
                "This service has a video transformer without a geometry branch (it was started without --weights)."
            )
        return Abilities(reasons, self.pipeline.clip, parts.text is not None, parts.branch is not None)

    def work(self, request: dict[str, Any], place: Path, name: str, report: Report) -> Outcome:
        """Do a job. Errors are told in the sender's words: of its file, not of where that lies."""
        doing = {"reconstruct": self.reconstruct, "lift": self.lift, "generate": self.generate}[request["kind"]]
        (place / FILES).mkdir(exist_ok=True)
        with _own_words(place, name):
            return doing(request, place, report)

    def reconstruct(self, request: dict[str, Any], place: Path, report: Report) -> Outcome:
        """Side by side: original, reconstruction, difference."""
        assert self.taehv is not None
        info = self.probed(place / UPLOAD)
        most = request["frames"] or self.limits.max_frames
        made = reconstruct_video(self.taehv, info.path, place / FILES / "reconstruction.mp4", max_frames=most)
        numbers = {
            "frames": made.frames,
            "frames_in_video": info.frames,
            "height": made.height,
            "width": made.width,
            "psnr": made.psnr,
            "ssim": made.ssim,
            "flicker": made.flicker,
            "psnr_of_mean_colour": made.baseline_psnr,
        }
        return Outcome(["reconstruction.mp4"], numbers)

    def lift(self, request: dict[str, Any], place: Path, report: Report) -> Outcome:
        """The first frames of the video, as many as asked for, or as the model is used to and the video has."""
        assert self.pipeline is not None
        info = self.probed(place / UPLOAD)
        most = (min(info.frames, self.limits.max_frames) - 1) // 4 * 4 + 1
        if (request["frames"] or 0) > info.frames:
            raise FramePlanError(
                f"frames is {request['frames']}, but the video has {info.frames}. Use at most {most}.", (most,)
            )
        clip = self.pipeline.clip_of(
            request["height"], request["width"], request["frames"] or min(self.pipeline.clip[2], most)
        )
        frames = fitted(read_frames(info.path, range(clip.frames)), clip.height, clip.width)
        report(0, 1)
        scene = self.pipeline.lift(frames, request["sigma"], generator=request["seed"], fps=info.fps or FPS)
        return _kept(scene, place, {"frames_in_video": info.frames, "sigma": scene.facts["sigma"]})

    def generate(self, request: dict[str, Any], place: Path, report: Report) -> Outcome:
        """A world; a video alone where there is no geometry branch."""
        assert self.pipeline is not None
        clip = self.pipeline.clip_of(request["height"], request["width"], request["frames"])
        words, upload = request["camera"], place / UPLOAD
        camera = path_of_text(words, clip.frames, clip.height, clip.width) if words else None
        geometry = self.pipeline.parts.branch is not None

        def on_step_end(pipeline: FantasyWorldPipeline, step: int, *_: Any) -> None:
            report(step + 1, request["steps"])

        made = self.pipeline(
            request["prompt"],
            _picture(upload) if upload.is_file() else None,
            camera,
            clip.frames,
            clip.height,
            clip.width,
            request["steps"],
            generator=request["seed"],
            output_type="scene" if geometry else "video",
            callback_on_step_end=on_step_end,
        )
        told = {"steps": request["steps"], "seed": request["seed"], "camera": words or None}
        if geometry:
            return _kept(made, place, told)
        write_video(place / FILES / "video.mp4", made, FPS)
        return Outcome(["video.mp4"], {"frames": clip.frames, "height": clip.height, "width": clip.width, **told})

    def probed(self, path: Path) -> VideoInfo:
        """What is in a video that came from outside. Raises DataError for one that is not taken."""
        with libav_errors(path, "cannot be opened"):
            options = {"protocol_whitelist": "file", "format_whitelist": CONTAINERS}
            container = av.open(str(path), "r", container_options=options, metadata_errors="replace")
        with container:
            if not set(container.format.name.split(",")) & set(CONTAINERS.split(",")):
                raise DataError(f"{path}: this is not {VIDEO_KINDS}.")
            for stream in container.streams.video:
                context = stream.codec_context
                if context is not None and context.width * context.height > self.limits.max_pixels:
                    raise DataError(
                        f"{path}: its pictures have {context.width} × {context.height} pixels; this service takes up to "
                        f"{self.limits.max_pixels} in all (--max_pixels)."
                    )
        return probe(path)


def _picture(path: Path) -> np.ndarray:
    """uint8 H W 3 of a picture that came from outside. Raises DataError."""
    try:
        with Image.open(path, formats=PICTURES) as image:
            if Image.MAX_IMAGE_PIXELS is not None and image.width * image.height > Image.MAX_IMAGE_PIXELS:
                raise DataError(f"{path}: the picture has {image.width} × {image.height} pixels, which is too large.")
            return open_picture(image)
    except UnidentifiedImageError as error:
        raise DataError(f"{path}: this is not {PICTURE_KINDS}.") from error
    except DataError:
        raise
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(f"{path}: a picture that cannot be read: {error}") from error


def _kept(scene: Scene, place: Path, told: dict[str, Any]) -> Outcome:
    """Write a scene: some of its files apart, all of them in one archive; facts without this machine's paths."""
    own = dict(scene.facts)
    if "weights" in own:
        own["weights"] = Path(own["weights"]).name
    if told.get("camera") and own.get("camera"):
        own["camera"] = {**own["camera"], "asked": told["camera"]}
    write_scene(replace(scene, facts=own), place / SCENE)
    names = [name for name in APART if (place / SCENE / name).is_file()]
    with zipfile.ZipFile(place / FILES / "scene.zip", "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for path in sorted(path for path in (place / SCENE).rglob("*") if path.is_file()):
            archive.write(path, f"{SCENE}/{path.relative_to(place / SCENE).as_posix()}")
    for name in names:
        (place / SCENE / name).rename(place / FILES / name)
    sizes = {"frames": len(scene.frames), "height": scene.height, "width": scene.width, "seed": own["seed"]}
    return Outcome([*names, "scene.zip"], {**sizes, **told})


@contextmanager
def _own_words(place: Path, name: str) -> Iterator[None]:
    """Errors name the file as its sender does, and no folder of this machine; too little memory is told as what it is."""
    try:
        yield
    except UserError as error:
        text = str(error).replace(str(place / UPLOAD), name).replace(f"{place}/", "")
        raise DataError(text) from error
    except (torch.OutOfMemoryError, MemoryError) as error:
        torch.cuda.empty_cache()
        raise DataError(
            "There is too little memory for this job here. Ask for fewer frames or a smaller picture."
        ) from error
