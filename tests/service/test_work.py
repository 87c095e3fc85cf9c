"""The three kinds of jobs with small models, from the form to files that can be read; and files that only look like videos."""

import io
import zipfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tests.clips import moving_pattern
from tests.infer.world.small import FRAMES, HEIGHT, WIDTH, make_base, make_branch, make_codec
from tests.service.helpers import TestClient, everything, send, service, wait
from tinyworld.infer.world.camera_paths import path_of_text
from tinyworld.infer.world.pictures import fitted
from tinyworld.infer.world.pipeline import FantasyWorldPipeline
from tinyworld.infer.world.scene import read_scene
from tinyworld.media.read import probe, read_frames
from tinyworld.media.write import write_video
from tinyworld.service.abilities import Abilities
from tinyworld.service.limits import Limits
from tinyworld.service.work import Models, _picture, _Studio, open_models
from tinyworld.service.worker import Worker

SMALL = {"max_steps": 10, "max_pixels": 80 * 80, "max_frames": 25}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("service")
    base, codec = make_base(folder / "base"), make_codec(folder / "codec")
    make_branch(folder / "stage2.safetensors", base, "stage2", torch.float32, codec)
    write_video(folder / "film.mp4", moving_pattern(12, 64, 80, 1), 12)
    write_video(folder / "wide.mp4", moving_pattern(2, 32, 400, 1), 12)
    return folder


def models(place: Path) -> Models:
    return Models(place / "codec", place / "base", place / "stage2.safetensors", device="cpu")


@pytest.fixture(scope="module")
def client(place: Path) -> Iterator[TestClient]:
    worker = Worker(partial(open_models, models(place), Limits(**SMALL)))
    abilities = worker.start()
    assert abilities == Abilities({}, (HEIGHT, WIDTH, FRAMES), False, True)
    with service(place / "jobs", worker=worker, abilities=abilities, **SMALL) as client:
        yield client


@pytest.fixture(scope="module")
def pipe(place: Path) -> FantasyWorldPipeline:
    return FantasyWorldPipeline.from_pretrained(place / "base", place / "stage2.safetensors", torch_dtype=torch.float32)


def job(client: TestClient, place: Path, kind: str, file: Any = None, **form: str) -> Any:
    """How a job ended; it left the surroundings of the service's folder as they were, and in it only its own folder."""
    before = everything(place)
    answer = send(client, kind, file, **form)
    assert answer.status_code == 202, answer.text
    told = wait(client, answer.json()["id"])
    own = {f"jobs/{told['id']}/{name}" for name in ("job.json", *(f"files/{name}" for name in told["files"]))}
    folders = {f"jobs/{told['id']}"} | ({f"jobs/{told['id']}/files"} if told["files"] else set())
    assert everything(place) - before == own | folders and before <= everything(place)
    assert str(place) not in client.get(f"/jobs/{told['id']}").text
    return told


def unpacked(client: TestClient, told: Any, folder: Path) -> Any:
    with zipfile.ZipFile(io.BytesIO(client.get(told["files"]["scene.zip"]).content)) as archive:
        assert str(folder.parent.parent) not in archive.read("scene/scene.json").decode()  # no path of the server
        archive.extractall(folder)
    return read_scene(folder / "scene")


def test_reconstruct(client: TestClient, place: Path, tmp_path: Path) -> None:
    told = job(client, place, "reconstruct", (place / "film.mp4").read_bytes(), frames="9")
    assert told["state"] == "done", told["error"]
    assert told["result"]["frames"] == 9 and told["result"]["frames_in_video"] == 12 and 0 < told["result"]["psnr"] < 60
    (tmp_path / "made.mp4").write_bytes(client.get(told["files"]["reconstruction.mp4"]).content)
    info = probe(tmp_path / "made.mp4")
    assert (info.frames, info.height, info.width) == (9, 64, 240)


def test_lift(client: TestClient, place: Path, tmp_path: Path, pipe: FantasyWorldPipeline) -> None:
    told = job(client, place, "lift", (place / "film.mp4").read_bytes(), sigma="0.2", seed="3")
    assert told["state"] == "done", told["error"]
    assert set(told["files"]) == {"video.mp4", "depth.mp4", "cloud.ply", "scene.zip"}
    scene = unpacked(client, told, tmp_path)
    frames = fitted(read_frames(place / "film.mp4", range(FRAMES)), HEIGHT, WIDTH)
    own = pipe.lift(frames, 0.2, generator=3)
    assert np.array_equal(scene.frames, frames) and np.allclose(scene.depth, own.depth, rtol=1e-4) and scene.fps == 12
    too_many = job(client, place, "lift", (place / "film.mp4").read_bytes(), frames="13")
    assert too_many["state"] == "failed" and "the video has 12. Use at most 9" in too_many["error"]


def test_generate(client: TestClient, place: Path, tmp_path: Path, pipe: FantasyWorldPipeline) -> None:
    picture = moving_pattern(1, 60, 60, 2)[0]
    Image.fromarray(picture).save(tmp_path / "first.png")
    form = {"camera": "forward 0.5 right 20deg", "steps": "2", "seed": "7"}
    told = job(client, place, "generate", ("../first.png", (tmp_path / "first.png").read_bytes()), **form)
    assert told["state"] == "done", told["error"]
    scene = unpacked(client, told, tmp_path)
    camera = path_of_text(form["camera"], FRAMES, HEIGHT, WIDTH)
    own = pipe(image=picture, camera=camera, num_inference_steps=2, generator=7)
    assert np.abs(scene.frames.astype(int) - own.frames).max() <= 1 and np.allclose(scene.depth, own.depth, rtol=1e-3)
    facts = scene.facts
    assert (
        facts["seed"] == 7 and facts["camera"]["asked"] == form["camera"] and facts["weights"] == "stage2.safetensors"
    )
    assert np.allclose(facts["camera"]["extrinsics"], camera.extrinsics.numpy())
    alone = job(client, place, "generate", steps="1", frames="1")
    assert alone["state"] == "done" and alone["result"]["camera"] is None


def test_files_that_only_look_right(client: TestClient, place: Path) -> None:
    film = (place / "film.mp4").read_bytes()
    cut = job(client, place, "reconstruct", ("holiday.mp4", film[: len(film) // 2]))
    assert cut["state"] == "failed" and cut["error"].startswith("holiday.mp4: ")
    wide = job(client, place, "lift", ("wide.mp4", (place / "wide.mp4").read_bytes()))
    assert wide["state"] == "failed" and "400 × 32 pixels" in wide["error"] and "--max_pixels" in wide["error"]
    broken = job(client, place, "generate", ("me.png", b"\x89PNG\r\n\x1a\n" + bytes(100)), steps="1")
    assert broken["state"] == "failed" and broken["error"] == "me.png: this is not a PNG, JPEG or WebP file."


def test_no_reader_follows_a_playlist(place: Path, tmp_path: Path) -> None:
    """Even past the look at the first bytes: what names other files is not opened, whatever those are."""
    from tinyworld.core.errors import DataError

    studio = _Studio(None, None, Limits(**SMALL))
    film = (place / "film.mp4").absolute()
    (tmp_path / "film.mp4").write_bytes(film.read_bytes())
    hls = f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nfile://{film}\n#EXT-X-ENDLIST\n"
    for text in (hls, "ffconcat version 1.0\nfile film.mp4\n"):
        (tmp_path / "upload").write_text(text)
        with pytest.raises(DataError, match="cannot be opened"):
            studio.probed(tmp_path / "upload")
    probe(tmp_path / "upload")  # which libav would have followed
    (tmp_path / "upload").write_bytes(film.read_bytes())
    assert studio.probed(tmp_path / "upload").frames == 12
    (tmp_path / "upload").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n")
    with pytest.raises(DataError, match="not a PNG, JPEG or WebP"):
        _picture(tmp_path / "upload")


def test_what_the_models_can_do(place: Path) -> None:
    _, some = open_models(Models(model=place / "codec", device="cpu"), Limits())
    assert set(some.reasons) == {"lift", "generate"} and some.clip is None


def test_a_video_without_geometry(place: Path, tmp_path: Path) -> None:
    work, abilities = open_models(Models(base=place / "base", codec=place / "codec", device="cpu"), Limits())
    assert set(abilities.reasons) == {"reconstruct", "lift"} and not abilities.geometry
    sizes = {"height": HEIGHT, "width": WIDTH, "frames": FRAMES}
    asked = {"kind": "generate", **sizes, "seed": 0, "steps": 1, "prompt": "", "camera": ""}
    seen: list[tuple[int, int]] = []
    outcome = work(asked, tmp_path, "", lambda done, total: seen.append((done, total)))
    assert (
        outcome.files == ["video.mp4"] and probe(tmp_path / "files" / "video.mp4").frames == FRAMES and seen == [(1, 1)]
    )
