"""The pipeline with a small random model: shapes, what is given to whom, reproducibility, batches, guidance, lifting."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from tests.infer.world.small import FRAMES, HEIGHT, SPEC, WIDTH, make_base, make_branch, make_codec
from tinyworld.core import rng
from tinyworld.core.errors import ConfigError, DataError, FramePlanError, MissingFileError, TrainingError, WeightsError
from tinyworld.core.geometry import plucker
from tinyworld.infer.world.camera_paths import cameras_for
from tinyworld.infer.world.conditions import Clip
from tinyworld.infer.world.denoise import Networks
from tinyworld.infer.world.pictures import fitted, open_picture, to_unit
from tinyworld.infer.world.pipeline import FantasyWorldPipeline
from tinyworld.infer.world.scene import Scene
from tinyworld.infer.world.schedule import flow_scheduler, nearest_level
from tinyworld.losses.flow import FlowSchedule, noised
from tinyworld.models.fantasy.backbone import WanConditions

FEW = {"num_inference_steps": 2}
PICTURE = np.random.default_rng(3).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
FOOTAGE = np.random.default_rng(4).integers(0, 256, (FRAMES, HEIGHT, WIDTH, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world")
    base, codec = make_base(folder / "base"), make_codec(folder / "codec")
    make_branch(folder / "stage1" / "best_model" / "model.safetensors", base, "stage1", torch.float32, codec)
    make_branch(folder / "stage2.safetensors", base, "stage2", torch.float32, codec)
    return folder


def opened(place: Path, weights: str | None) -> FantasyWorldPipeline:
    file = None if weights is None else place / weights
    return FantasyWorldPipeline.from_pretrained(place / "base", file, place / "codec", torch_dtype=torch.float32)


@pytest.fixture(scope="module")
def second(place: Path) -> FantasyWorldPipeline:
    return opened(place, "stage2.safetensors")


@pytest.fixture(scope="module")
def first(place: Path) -> FantasyWorldPipeline:
    """Opened by the folder of its run."""
    return opened(place, "stage1")


class Words:
    """A text encoder: what it makes of a prompt depends on the prompt alone."""

    digest = ""

    def encode(self, prompts: list[str]) -> Tensor:
        shape = (SPEC.backbone.text_tokens, SPEC.backbone.text_dim)
        return rng.normal([rng.derive_seed(prompt) for prompt in prompts], shape)


@pytest.fixture
def speaking(second: FantasyWorldPipeline, monkeypatch: pytest.MonkeyPatch) -> FantasyWorldPipeline:
    from tinyworld.infer.world import places

    words: Any = Words()
    monkeypatch.setattr(second.conditioner, "text", words)
    monkeypatch.setattr(second, "parts", second.parts.__class__(**{**vars(second.parts), "text": words}))
    monkeypatch.setattr(places, "move", lambda part, device: None)
    return second


def difference(one: Scene, other: Scene) -> float:
    """The largest of all arrays."""
    pairs = [(one.depth, other.depth), (one.confidence, other.confidence), (one.points, other.points)]
    pairs += [
        (one.cameras.extrinsics.numpy(), other.cameras.extrinsics.numpy()),
        (one.frames / 255, other.frames / 255),
    ]
    return max(float(np.abs(a - b).max()) for a, b in pairs if a is not None and b is not None)


def test_noise_levels_are_those_of_training() -> None:
    law = FlowSchedule()
    thousand = flow_scheduler(1000)
    assert torch.allclose(thousand.sigmas[:-1], law.sigma(torch.arange(1000)), atol=1e-6)
    assert torch.allclose(thousand.timesteps, law.timestep(torch.arange(1000)), atol=1e-3)
    fifty = flow_scheduler(50)
    assert len(fifty.timesteps) == 50
    assert fifty.sigmas[0] == 1 and fifty.sigmas[-1] == 0
    assert torch.allclose(fifty.sigmas[:-1], law.sigma(torch.arange(0, 1000, 20)), atol=1e-6)
    for sigma in (0.0, 0.1, 0.5, 1.0):
        assert nearest_level(sigma) == pytest.approx(float(law.sigma(torch.tensor(law.nearest(sigma)))), abs=1e-6)
    with pytest.raises(ConfigError, match="num_inference_steps=0"):
        flow_scheduler(0)
    with pytest.raises(ConfigError, match=r"sigma=1\.5"):
        nearest_level(1.5)


@pytest.mark.parametrize("stage", ["first", "second"])
def test_a_scene(stage: str, request: pytest.FixtureRequest) -> None:
    pipe = request.getfixturevalue(stage)
    scene = pipe(image=PICTURE, camera="orbit", generator=5, camera_scale=2.0, **FEW)
    assert scene.frames.shape == (FRAMES, HEIGHT, WIDTH, 3) and scene.frames.dtype == np.uint8
    assert scene.depth.shape == scene.confidence.shape == (FRAMES, HEIGHT, WIDTH)
    assert scene.points is not None and scene.points.shape == (FRAMES, HEIGHT, WIDTH, 3)
    assert (scene.depth > 0).all() and (scene.confidence >= 1).all()
    assert scene.cameras.extrinsics.dtype == torch.float64
    assert torch.equal(scene.cameras.extrinsics[0], torch.eye(3, 4, dtype=torch.float64))
    assert scene.scale == 2 and scene.facts["seed"] == 5 and scene.facts["camera"]["asked"] == "orbit"
    assert scene.facts["sigma"] == pytest.approx(5 * 0.5 / 3)
    assert scene.facts["stage"] == pipe.parts.branch.stage


def test_seeds_reproduce(second: FantasyWorldPipeline) -> None:
    scene = second(generator=5, **FEW)
    assert difference(scene, second(generator=5, **FEW)) == 0
    assert difference(scene, second(generator=6, **FEW)) > 1e-3
    drawn = second(generator=torch.Generator().manual_seed(1), **FEW)
    assert difference(drawn, second(generator=torch.Generator().manual_seed(1), **FEW)) == 0
    assert difference(drawn, second(generator=drawn.facts["seed"], **FEW)) == 0


def test_a_batch_is_its_samples(speaking: FantasyWorldPipeline) -> None:
    """Samples with and without prompt, picture and camera beside each other."""
    prompts, pictures = ["a room", "", "a garden"], [PICTURE, None, None]
    cameras = [None, "dolly", "pan"]
    batch = speaking(prompts, pictures, cameras, generator=[3, 8, 1], negative_prompt="grey", **FEW)
    assert len(batch) == 3
    for at, seed in enumerate((3, 8, 1)):
        alone = speaking(prompts[at], pictures[at], cameras[at], generator=seed, negative_prompt="grey", **FEW)
        assert difference(batch[at], alone) < 1e-4 + 1 / 255
        assert np.abs(batch[at].depth - alone.depth).max() < 1e-4
        assert batch[at].facts["prompt"] == prompts[at]
    counted = speaking(["", ""], generator=7, **FEW)
    assert [scene.facts["seed"] for scene in counted] == [7, 8]
    with pytest.raises(ConfigError, match="prompt has 2, camera has 1"):
        speaking(["", ""], camera=["orbit"])


def test_stage_one_leaves_the_video_alone(first: FantasyWorldPipeline, place: Path) -> None:
    asked = {"image": PICTURE, "camera": "dolly", "generator": 2, "output_type": "video", **FEW}
    base = opened(place, None)
    video = base(height=HEIGHT, width=WIDTH, num_frames=FRAMES, **asked)
    assert np.array_equal(video, first(**asked))
    with pytest.raises(ConfigError, match=r"no geometry branch.*--weights"):
        base(height=HEIGHT, width=WIDTH, num_frames=FRAMES)
    with pytest.raises(ConfigError, match="no geometry branch"):
        base.lift(FOOTAGE)
    assert base.clip == (336, 592, 81)


@pytest.mark.parametrize("interact", [[True, True], [True, False], [False, False]])
def test_the_velocity_without_heads(second: FantasyWorldPipeline, interact: list[bool]) -> None:
    """Bit for bit what the branch gives beside its geometry."""
    clip = Clip(HEIGHT, WIDTH, FRAMES)
    cameras = cameras_for("orbit", FRAMES, HEIGHT, WIDTH)
    given = second.conditioner.given(clip, ["", ""], [PICTURE, None], [cameras, None], interact=True)
    given = given._replace(interact=torch.tensor(interact))
    noisy, timestep = rng.normal([0, 1], clip.latents(16)), torch.full((2,), 500.0)
    velocity, _ = second.networks.joint(noisy, timestep, given)
    assert torch.equal(second.networks.velocity(noisy, timestep, given), velocity)


def test_conditions_are_those_of_training(second: FantasyWorldPipeline) -> None:
    clip = Clip(HEIGHT, WIDTH, FRAMES)
    cameras = cameras_for("orbit", FRAMES, HEIGHT, WIDTH)
    given = second.conditioner.given(clip, ["", ""], [PICTURE, None], [None, cameras], interact=True)
    image = given.conditions.image
    encoded = second.parts.codec.encode(to_unit(PICTURE[None])[None])
    assert torch.equal(image[0, :, :1], encoded[0]) and not image[0, :, 1:].any() and not image[1].any()
    assert not given.conditions.text.any() and given.conditions.clip is None
    assert given.camera.tolist() == [False, True]
    assert torch.equal(given.rays[1], plucker(cameras.to(torch.float32))) and not given.rays[0].any()
    nobody = second.conditioner.given(clip, [""], [None], [None], interact=True)
    assert nobody.conditions.camera is None and not nobody.camera.any()


def test_files_are_scaled_and_words_are_not(second: FantasyWorldPipeline, tmp_path: Path) -> None:
    from tinyworld.media.camera_files import write_cameras

    cameras = cameras_for("dolly:0.5", FRAMES, HEIGHT, WIDTH)
    write_cameras(tmp_path / "path.txt", cameras, "17")
    asked = {"camera_scale": 2.0, "num_inference_steps": 1}
    made = [second(camera=camera, **asked).facts["camera"] for camera in (tmp_path / "path.txt", cameras, "dolly:0.5")]
    lengths = [-entry["extrinsics"][-1][2][3] for entry in made]
    assert lengths == pytest.approx([0.25, 0.25, 0.5])
    assert made[0]["asked"] == str(tmp_path / "path.txt") and made[1]["asked"] is None
    with pytest.raises(DataError, match=r"cameras of \(9, 32, 48\)"):
        second(camera=cameras_for("dolly", 9, HEIGHT, WIDTH))
    narrow = second(camera="pan", camera_options={"fov_degrees": 30.0}, **asked).facts["camera"]["intrinsics"][0][0]
    assert narrow == pytest.approx(WIDTH / 2 / np.tan(np.radians(15)))


def test_guidance(speaking: FantasyWorldPipeline, caplog: pytest.LogCaptureFixture) -> None:
    """(1 - g) of the pass without prompt and two-way attention and g of the other; one pass where that is nothing."""
    asked = {"generator": 4, "num_inference_steps": 1, "output_type": "latent"}
    clip = Clip(HEIGHT, WIDTH, FRAMES)
    given = speaking.conditioner.given(clip, ["a room"], [None], [None], interact=True)
    empty = speaking.conditioner.unprompted(given, ["grey"])
    assert not empty.interact.any() and not torch.equal(empty.conditions.text, given.conditions.text)
    noise, told = rng.normal([4], clip.latents(16)), torch.full((1,), 1000.0)
    with_it = speaking.networks.velocity(noise, told, given)
    without = speaking.networks.velocity(noise, told, empty)
    expected = noise - (without + 5 * (with_it - without))
    assert torch.allclose(speaking("a room", negative_prompt="grey", **asked), expected, atol=1e-5)
    assert torch.equal(speaking("a room", guidance_scale=1, **asked), noise - with_it)


def passes(pipe: FantasyWorldPipeline, monkeypatch: pytest.MonkeyPatch, **asked: Any) -> tuple[int, int]:
    """How often the velocity alone and velocity with geometry were computed."""
    calls = {"velocity": 0, "joint": 0}
    for name in calls:
        own = getattr(Networks, name)

        def counted(*arguments: Any, name: str = name, own: Any = own, **more: Any) -> Any:
            calls[name] += 1
            return own(*arguments, **more)

        monkeypatch.setattr(Networks, name, counted)
    pipe(num_inference_steps=3, **asked)
    monkeypatch.undo()
    return calls["velocity"], calls["joint"]


def test_geometry_at_the_last_step_alone(
    second: FantasyWorldPipeline, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    assert passes(second, monkeypatch) == (2, 1)
    with caplog.at_level("WARNING"):
        assert passes(second, monkeypatch, prompt="a room") == (2, 1)  # without text there is nothing to guide by
    assert "'a room' has no effect" in caplog.text


def test_callback_and_estimate(second: FantasyWorldPipeline) -> None:
    seen: list[tuple[int, float]] = []
    last: dict[str, Tensor] = {}

    def watch(pipe: FantasyWorldPipeline, step: int, timestep: Tensor, tensors: dict[str, Tensor]) -> None:
        assert pipe is second
        seen.append((step, float(timestep)))
        last.update(tensors)

    plain = second(generator=1, output_type="latent", callback_on_step_end=watch, **FEW)
    assert [step for step, _ in seen] == [0, 1] and seen[0][1] == 1000
    assert torch.allclose(last["estimate"], plain, atol=1e-5)  # of the last step: it goes down to no noise
    zeroed = second(
        generator=1, output_type="latent", callback_on_step_end=lambda *_: {"latents": torch.zeros_like(plain)}, **FEW
    )
    assert not zeroed.any()


def test_lift_is_one_pass_of_validation(second: FantasyWorldPipeline) -> None:
    """As tasks/fantasy measures held-out clips: cameras unknown, all else given."""
    scene = second.lift(FOOTAGE, sigma=0.1, generator=3, fps=8)
    assert np.array_equal(scene.frames, FOOTAGE) and scene.fps == 8 and scene.scale == 1
    schedule = FlowSchedule()
    index = torch.tensor([schedule.nearest(0.1)])
    codec, branch = second.parts.codec, second.parts.branch
    assert branch is not None
    latents = codec.encode(to_unit(FOOTAGE)[None])
    image = torch.zeros_like(latents)
    image[:, :, :1] = codec.encode(to_unit(FOOTAGE[:1])[None])
    noisy = noised(latents, rng.normal([3], latents.shape[1:]), schedule.sigma(index))
    text = torch.zeros(1, SPEC.backbone.text_tokens, SPEC.backbone.text_dim)
    rays, no = torch.rand(1, 6, FRAMES, HEIGHT, WIDTH), torch.zeros(1, dtype=torch.bool)
    conditions = WanConditions(text, image, rays, None, no)
    with torch.no_grad():
        made = branch(second.parts.backbone, noisy, schedule.timestep(index), conditions, rays, no, steered=no)
    assert np.allclose(scene.depth, made.geometry.depth[0].numpy(), atol=1e-4)
    told = second.lift(FOOTAGE, camera="orbit", generator=3)
    assert not np.allclose(told.depth, scene.depth, atol=1e-4)
    with pytest.raises(FramePlanError, match="num_frames=4 is not 4k"):
        second.lift(FOOTAGE[:4])
    with pytest.raises(ConfigError, match="Use 32 × 48"):
        second.lift(FOOTAGE[:, :, :41])
    with pytest.raises(DataError, match="uint8 T H W 3"):
        second.lift(FOOTAGE.astype(np.float32))


def test_streamed_decoding(second: FantasyWorldPipeline) -> None:
    latents = rng.normal([1, 2], (16, 3, 4, 6))
    pieces = list(second.decode_stream(latents, "tiny"))
    assert [piece.shape[1] for piece in pieces] == [1, 4, 4]
    assert torch.allclose(torch.cat(pieces, 1), second.parts.codec.decode(latents, 9), atol=1e-5)
    assert torch.equal(second.decode(latents), torch.cat(pieces, 1))


def test_offload_gives_the_same(second: FantasyWorldPipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every part is brought to the device for its work, and back."""
    from tinyworld.infer.world import places

    before = second(generator=5, **FEW)
    moved: list[tuple[str, str]] = []
    monkeypatch.setattr(second, "places", places.Places("cpu"))
    monkeypatch.setattr(second.conditioner, "places", second.places)
    monkeypatch.setattr(places, "move", lambda part, device: moved.append((type(part).__name__, str(device))))
    second.enable_model_cpu_offload("cpu")
    assert second.places.in_turn
    assert difference(second(image=None, generator=5, **FEW), before) == 0
    steps = [name for name, _ in moved]
    assert steps == ["WanBackbone", "GeometryBranch"] * 2 + ["TaehvCodec"] * 2


def test_pictures(tmp_path: Path, second: FantasyWorldPipeline) -> None:
    Image.fromarray(PICTURE).save(tmp_path / "first.png")
    for source in (PICTURE, Image.fromarray(PICTURE), tmp_path / "first.png", str(tmp_path / "first.png")):
        assert np.array_equal(open_picture(source), PICTURE)
    wide = np.zeros((1, 64, 200, 3), np.uint8)
    wide[:, :, 52:148] = 255
    assert fitted(wide, HEIGHT, WIDTH).min() == 255  # the middle of 64 × 96
    assert np.array_equal(fitted(PICTURE[None], HEIGHT, WIDTH)[0], PICTURE)
    (tmp_path / "text.png").write_text("no picture")
    with pytest.raises(DataError, match=r"text\.png: not a picture"):
        second(image=tmp_path / "text.png")
    with pytest.raises(MissingFileError, match="no such picture"):
        second(image=tmp_path / "nothing.png")
    with pytest.raises(DataError, match="uint8 H W 3"):
        second(image=PICTURE.astype(np.float32))


def test_mistakes_in_a_call(second: FantasyWorldPipeline) -> None:
    for asked, said in (
        ({"num_frames": 6}, "Use 5 or 9"),
        ({"height": 40}, "Use 32 × 48"),
        ({"guidance_scale": float("nan")}, "guidance_scale=nan"),
        ({"camera_scale": 0}, "camera_scale=0"),
        ({"decoder": "small"}, "neither"),
        ({"output_type": "pil"}, "output_type='pil'"),
    ):
        with pytest.raises((ConfigError, FramePlanError), match=said):
            second(**asked)


def test_what_belongs_together(place: Path, tmp_path: Path) -> None:
    """Precision may differ from training; another transformer may not."""
    pipe = FantasyWorldPipeline.from_pretrained(place / "base", place / "stage1", torch_dtype=torch.bfloat16)
    assert pipe.clip == (HEIGHT, WIDTH, FRAMES) and pipe.parts.backbone.dtype == torch.bfloat16
    assert pipe(**FEW).depth.shape == (FRAMES, HEIGHT, WIDTH)
    other = make_base(tmp_path / "other", seed=9)
    with pytest.raises(WeightsError, match="trained beside the video transformer"):
        FantasyWorldPipeline.from_pretrained(other, place / "stage1")
    with pytest.raises(ConfigError, match=r"no codec.*--codec"):
        FantasyWorldPipeline.from_pretrained(place / "base")
    with pytest.raises(MissingFileError, match="--weights"):
        FantasyWorldPipeline.from_pretrained(place / "base", tmp_path / "nothing")


def test_broken_numbers_are_told(second: FantasyWorldPipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    noise = torch.full((1, *Clip(HEIGHT, WIDTH, FRAMES).latents(16)), torch.nan)
    monkeypatch.setattr(second, "_noise", lambda clip, seeds: noise)
    with pytest.raises(TrainingError, match="latents hold numbers that are not finite"):
        second(**FEW)
    with pytest.raises(TrainingError, match="geometry hold numbers"):
        second.lift(FOOTAGE)
