"""Mode distil: what is learned from the teacher, by which part, about which frames; and what stops the run."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.tasks.conftest import MakeRecipe
from tests.teachers import make_teacher
from tinyworld.core.errors import ConfigError, MissingFileError, TrainingError, WeightsError
from tinyworld.engine.loop import run_training
from tinyworld.engine.task import Losses
from tinyworld.models.teachers import Posterior
from tinyworld.tasks.taehv import TaehvTask

CPU = torch.device("cpu")


def first_losses(task: TaehvTask, done: int = 0) -> Losses:
    (batch,) = next(iter(task.batches(0, 1, 0, 1)))
    return task.step(task.model, batch, CPU, done)


def reached(task: TaehvTask, term: Tensor) -> set[str]:
    """The parts of the model that a term's gradient reaches."""
    names, parameters = zip(*((n, p) for n, p in task.model.named_parameters() if p.requires_grad), strict=True)
    gradients = torch.autograd.grad(term, parameters, retain_graph=True, allow_unused=True)
    return {name.split(".")[0] for name, g in zip(names, gradients, strict=True) if g is not None and g.abs().sum() > 0}


def test_encoder_learns_latents_and_decoder_decodes_the_teachers(distil: MakeRecipe) -> None:
    task = TaehvTask(distil())
    losses = first_losses(task)
    assert set(losses.terms) == {"reconstruction", "flicker", "encoder"}
    assert reached(task, losses.terms["encoder"]) == {"encoder"}
    assert reached(task, losses.terms["reconstruction"]) == {"decoder"}


def test_one_part_alone(distil: MakeRecipe, tmp_path: Path) -> None:
    task = TaehvTask(distil())
    task.export(task.model.state_dict(), tmp_path / "start")
    start = {"pretrained_model_path": str(tmp_path / "start")}
    encoder = TaehvTask(distil(train_part="encoder", **start))
    assert set(first_losses(encoder).terms) == {"encoder"}
    decoder = TaehvTask(distil(train_part="decoder", **start))
    losses = first_losses(decoder)
    assert set(losses.terms) == {"reconstruction", "flicker"} and reached(decoder, losses.total) == {"decoder"}
    own = TaehvTask(distil(train_part="encoder", use_ref_vae=False, latent_loss_weight=0.0, **start))
    assert reached(own, first_losses(own).total) == {"encoder"}  # through the frozen decoder
    run_training(decoder, distil(train_part="decoder", max_train_steps=2, run_name="d", **start))
    trained = decoder.model.state_dict()
    for name, value in task.model.state_dict().items():
        if name.startswith("encoder."):
            assert torch.equal(value, trained[name]), name


def test_the_teacher_is_shown_exactly_the_frames_that_decoding_gives_back(
    distil: MakeRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cog = make_teacher(tmp_path / "cog", "cogvideox")
    for changes, shown, compared in (
        ({"n_frames": 12}, 9, 9),  # 3 latents; the student's encoder sees 3 frames more
        ({"n_frames": 13, "pad_frames": True}, 13, 13),  # a clip to its very end: 3 repeats for the student alone
        ({"n_frames": 12, "variant": "taecvx", "ref_vae_path": str(cog)}, 9, 9),
        ({"n_frames": 10, "pad_frames": True, "variant": "taecvx", "ref_vae_path": str(cog)}, 17, 10),
    ):
        task = TaehvTask(distil(**changes))
        teacher = task.lessons.teacher if task.lessons is not None else None
        assert teacher is not None
        seen: list[Tensor] = []
        encode = teacher.encode

        def spy(frames: Tensor, seen: list[Tensor] = seen, encode: Any = encode) -> Posterior:
            seen.append(frames)
            return encode(frames)

        monkeypatch.setattr(teacher, "encode", spy)
        (batch,) = next(iter(task.batches(0, 1, 0, 1)))
        task.step(task.model, batch, CPU, 0)
        frames = batch.frames.float() / 255
        (given,) = seen
        assert given.shape[1] == shown
        last = min(shown, frames.shape[1])
        assert torch.equal(given[:, :last], frames[:, :last])
        assert torch.equal(given[:, last:], frames[:, -1:].expand_as(given[:, last:]))
        assert task.plan(frames.shape[1]).target_frames == compared


def test_an_even_number_of_cogvideox_latents_is_for_the_decoder_alone(distil: MakeRecipe, tmp_path: Path) -> None:
    cog = str(make_teacher(tmp_path / "cog", "cogvideox"))
    with pytest.raises(ConfigError, match=r"Use 12 or 20 \(key: data.n_frames\)"):
        distil(n_frames=16, variant="taecvx", ref_vae_path=cog)
    task = TaehvTask(distil(variant="taecvx", ref_vae_path=cog, n_frames=12))
    task.export(task.model.state_dict(), tmp_path / "start")
    start = str(tmp_path / "start")
    task = TaehvTask(
        distil(variant="taecvx", ref_vae_path=cog, n_frames=16, train_part="decoder", pretrained_model_path=start)
    )
    assert task.plan(16).target_frames == 16  # nothing is trimmed of an even number
    assert first_losses(task).total.isfinite()


def test_the_latents_are_in_the_stated_convention(distil: MakeRecipe) -> None:
    scaled, raw = TaehvTask(distil()), TaehvTask(distil(latent_convention="raw"))
    a, b = (task.windows[0].taught for task in (scaled, raw))
    assert a is not None and b is not None and not torch.allclose(a.latents, b.latents)
    assert scaled.taught_by["latents"] == "normalised" and raw.taught_by["latents"] == "raw"
    assert a.psnr == pytest.approx(b.psnr, abs=1e-3)  # the teacher's own pictures are the same


def test_validation_decodes_the_teachers_latents(distil: MakeRecipe) -> None:
    task = TaehvTask(distil())
    with torch.no_grad():
        rows = task.evaluate(task.model, task.windows, CPU)
        window = task.windows[0]
        assert window.taught is not None
        frames = window.frames(CPU)
        made = task.model.decode(window.taught.latents, frames.shape[1])
    error = (made - frames).square().mean()
    assert rows[0].metrics["psnr"] == pytest.approx(-10 * torch.log10(error).item(), abs=1e-3)
    assert rows[0].metrics["round_trip_psnr"] != rows[0].metrics["psnr"]
    assert rows[0].baseline["teacher_psnr"] == window.taught.psnr


@pytest.mark.parametrize("changes", [{}, {"n_frames": 10, "pad_frames": True}])
def test_teacher_features_reach_the_decoder(distil: MakeRecipe, changes: dict[str, Any]) -> None:
    task = TaehvTask(distil(decoder_loss_weight=0.5, **changes))
    losses = first_losses(task)
    assert losses.terms["decoder"] > 0 and reached(task, losses.terms["decoder"]) == {"decoder"}


def test_a_teacher_that_does_not_fit_or_load_stops_before_training(
    distil: MakeRecipe, tmp_path: Path, wan: Path
) -> None:
    with pytest.raises(ConfigError, match=r"Use taew2_2"):
        TaehvTask(distil(ref_vae_path=str(make_teacher(tmp_path / "w22", "wan2_2"))))
    with pytest.raises(ConfigError, match="CogVideoX"):
        TaehvTask(distil(variant="taecvx"))
    with pytest.raises(MissingFileError, match="ref_vae_path"):
        TaehvTask(distil(ref_vae_path=str(tmp_path / "nowhere")))
    with pytest.raises(ConfigError, match=r"teacher\.ref_vae_path"):
        distil(ref_vae_path=None)
    broken = make_teacher(tmp_path / "broken", "wan")
    weights = next(broken.glob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:-1000])
    with pytest.raises(WeightsError):
        TaehvTask(distil(ref_vae_path=str(broken)))


def test_a_teacher_that_fails_to_encode_stops_the_run(distil: MakeRecipe, monkeypatch: pytest.MonkeyPatch) -> None:
    task = TaehvTask(distil(max_train_steps=5))
    assert task.lessons is not None and task.lessons.teacher is not None

    def fail(frames: Tensor) -> Posterior:
        raise TrainingError("the teacher's latents are not finite")

    monkeypatch.setattr(task.lessons.teacher, "encode", fail)
    with pytest.raises(TrainingError, match="not finite"):
        run_training(task, task.recipe)


def test_the_guides_name_for_the_vae_is_understood(distil: MakeRecipe, wan: Path) -> None:
    recipe = distil(ref_vae_path=None, use_ref_vae=False)
    assert recipe.teacher.ref_vae_path is None
    from tinyworld.config.load import load_recipe

    named = load_recipe("taehv_demo", {"use_ref_vae": True, "cogvideox_model_path": str(wan)})
    assert named.teacher.ref_vae_path == str(wan)
    with pytest.raises(ConfigError, match="same key"):
        load_recipe("taehv_demo", {"ref_vae_path": "a", "cogvideox_model_path": "b"})


def test_stages_that_have_not_begun_may_still_change(distil: MakeRecipe) -> None:
    def prints(from_step: int, done: int) -> dict[str, Any]:
        stage = {"from_step": from_step, "height": 48, "width": 48, "n_frames": 12}
        return TaehvTask(distil(stages=[stage], max_train_steps=9)).fingerprint(done)

    assert prints(5, done=5) == prints(7, done=5)  # five steps are done, the next one begins the stage
    assert prints(5, done=6) != prints(7, done=6)


def test_stages_follow_one_another(distil: MakeRecipe) -> None:
    stages = [
        {"from_step": 2, "height": 48, "width": 48, "n_frames": 12, "train_batch_size": 1},
        {"from_step": 4, "height": 32, "width": 48, "n_frames": 8},
    ]
    task = TaehvTask(distil(stages=stages, max_train_steps=6))
    shapes = [tuple(batch.frames.shape) for (batch,) in task.batches(0, 6, 0, 1)]
    assert shapes == [(2, 12, 3, 32, 32)] * 2 + [(1, 12, 3, 48, 48)] * 2 + [(2, 8, 3, 32, 48)] * 2
    again = [batch.frames for (batch,) in task.batches(3, 6, 0, 1)]
    straight = [batch.frames for (batch,) in task.batches(0, 6, 0, 1)][3:]
    assert all(torch.equal(a, b) for a, b in zip(again, straight, strict=True))
