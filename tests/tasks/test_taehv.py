"""The taehv task: what a step computes, what it refuses, how held-out clips are measured."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from tests.clips import make_clips
from tinyworld.config.load import load_recipe
from tinyworld.config.schema import TaehvRecipe
from tinyworld.core.errors import DataError
from tinyworld.core.names import file_name
from tinyworld.losses.pixel import pixel_distance
from tinyworld.tasks.taehv import TaehvTask

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_clips(tmp_path_factory.mktemp("clips"), count=6)


def small(clips: Path, tmp_path: Path, **changes: object) -> TaehvRecipe:
    values = {
        "data_root": str(clips), "height": 32, "width": 32, "n_frames": 8, "train_batch_size": 2, "encoder_width": 8,
        "decoder_widths": [16, 8, 8, 8], "num_workers": 0, "output_dir": str(tmp_path), "variant": "taew2_1",
        "held_out_fraction": 0.3,
    }  # fmt: skip
    return load_recipe("taehv_demo", {**values, **changes})


def first_batch(task: TaehvTask):  # type: ignore[no-untyped-def]
    return next(iter(task.batches(0, 1, 0, 1)))[0]


def test_terms_are_weighted_and_compare_the_right_frames(clips: Path, tmp_path: Path) -> None:
    task = TaehvTask(small(clips, tmp_path, reconstruction_loss_weight=3.0, flicker_loss_weight=0.0))
    batch = first_batch(task)
    losses = task.step(task.model, batch, CPU, 0)
    frames = batch.frames.float() / 255
    with torch.no_grad():
        _, decoded = task.model(frames, task.plan(8))
    expected = 3 * pixel_distance(
        decoded[:, :5], frames[:, :5], "mse"
    )  # 8 frames → 2 latents → 5 decoded, from the first
    assert losses.terms["reconstruction"].item() == pytest.approx(expected.item(), rel=1e-5)
    assert "flicker" not in losses.terms
    assert losses.total.item() == pytest.approx(sum(term.item() for term in losses.terms.values()), rel=1e-6)


def test_every_weight_gets_a_gradient(clips: Path, tmp_path: Path) -> None:
    task = TaehvTask(small(clips, tmp_path))
    torch.manual_seed(0)
    for parameter in task.model.parameters():
        nn.init.normal_(parameter, 0, 0.1)  # the start has zeroed convolutions, behind which nothing has a gradient yet
    task.step(task.model, first_batch(task), CPU, 0).total.backward()
    without = [name for name, p in task.model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert not without


def test_padded_windows_are_masked(clips: Path, tmp_path: Path) -> None:
    task = TaehvTask(small(clips, tmp_path, n_frames=7, pad_frames=True))
    batch = first_batch(task)
    assert task.plan(7).target_frames == 7
    loss = task.step(task.model, batch, CPU, 0).terms["reconstruction"].item()
    frames, plan = batch.frames.float() / 255, task.plan(7)
    padded = torch.cat([frames, frames[:, -1:].expand(-1, plan.decoded_frames - 7, -1, -1, -1)], 1)
    with torch.no_grad():
        error = (task.model(frames, plan)[1] - padded).square().mean(dim=(0, 2, 3, 4))
    weight = task.recipe.loss.reconstruction_loss_weight
    assert plan.mask == (True,) * 7 + (False,) * 2
    assert loss == pytest.approx(weight * error[torch.tensor(plan.mask)].mean().item(), rel=1e-5)
    assert loss != pytest.approx(weight * error.mean().item(), rel=1e-3)


@pytest.mark.parametrize(
    ("variant", "positions"),
    [
        ("taew2_1", (3, *(0, 1, 2, 3) * 5, 0)),
        ("taecvx", (3, *(0, 1, 2, 3) * 5, 0)),
        ("taeh3", (3, *(0, 1, 2, 3) * 4, 3, 0, 1, 2, 3)),  # each chunk of 17 drops its first 3 outputs
    ],
)
def test_errors_show_at_the_position_of_the_frame_in_its_latent(
    clips: Path, tmp_path: Path, variant: str, positions: tuple[int, ...]
) -> None:
    task = TaehvTask(small(clips, tmp_path, n_frames=22, pad_frames=True, variant=variant))
    samples = list(task.held_out())[:1]
    frames = samples[0].frames(CPU)
    with torch.no_grad():
        nn.init.zeros_(task.model.decoder[-1].weight)  # a grey picture: errors are those of the clip itself
        (row,) = task.evaluate(task.model, samples, CPU)
    errors = (frames - 0.5).square().mean(dim=(0, 2, 3, 4))
    expected = [-10 * torch.log10(errors[torch.tensor(positions) == k].mean()).item() for k in range(4)]
    assert row.metrics["psnr_by_position"] == pytest.approx(expected, abs=1e-4)
    assert max(expected) - min(expected) > 1e-3


def test_previews_of_any_id_are_written_side_by_side(clips: Path, tmp_path: Path) -> None:
    task = TaehvTask(small(clips, tmp_path))
    sample = task.held_out()[0]
    ids = ["a/b", "a_b", "/".join(["deep"] * 80)]
    for clip_id in ids:
        task.preview(task.model, replace(sample, clip=replace(sample.clip, id=clip_id)), CPU, tmp_path)
    written = {path.name for path in tmp_path.glob("*.mp4")}
    assert written == {f"{file_name(clip_id)}.mp4" for clip_id in ids} and len(written) == 3


def test_ten_steps_learn(clips: Path, tmp_path: Path) -> None:
    task = TaehvTask(small(clips, tmp_path))
    optimizer = torch.optim.AdamW(task.model.parameters(), 2e-3)
    totals = []
    for batches in task.batches(0, 15, 0, 1):
        losses = task.step(task.model, batches[0], CPU, 0)
        losses.total.backward()
        optimizer.step()
        optimizer.zero_grad()
        totals.append(losses.terms["reconstruction"].item())
    assert sum(totals[-3:]) < 0.7 * sum(totals[:3])


def test_held_out_videos_are_never_trained_on(clips: Path, tmp_path: Path) -> None:
    task = TaehvTask(small(clips, tmp_path))
    held_out = {window.clip.id for window in task.held_out()}
    seen = {sample for batches in task.batches(0, 12, 0, 1) for batch in batches for sample in batch.ids}
    assert held_out and not held_out & seen
    assert held_out | seen == {f"clip{i}" for i in range(6)}


def test_measures_do_not_depend_on_the_batch(clips: Path, tmp_path: Path) -> None:
    task = TaehvTask(small(clips, tmp_path))
    samples = list(task.held_out())
    with torch.no_grad():
        together = task.evaluate(task.model, samples, CPU)
        alone = [row for sample in samples for row in task.evaluate(task.model, [sample], CPU)]
    for one, other in zip(together, alone, strict=True):
        assert one.id == other.id and one.metrics["psnr"] == pytest.approx(other.metrics["psnr"], abs=1e-4)
        assert one.baseline["psnr"] == pytest.approx(other.baseline["psnr"], abs=1e-6)


def test_weights_survive_saving(clips: Path, tmp_path: Path) -> None:
    task, other = (TaehvTask(small(clips, tmp_path, seed=seed)) for seed in (0, 1))
    task.write_weights(task.model.state_dict(), tmp_path / "w.safetensors")
    other.model.load_state_dict(other.read_weights(tmp_path / "w.safetensors"))
    assert all(torch.equal(a, b) for a, b in zip(task.model.parameters(), other.model.parameters(), strict=True))


def test_the_same_seed_starts_from_the_same_weights_whatever_came_before(clips: Path, tmp_path: Path) -> None:
    first = TaehvTask(small(clips, tmp_path)).model.state_dict()
    torch.manual_seed(1234)
    second = TaehvTask(small(clips, tmp_path)).model.state_dict()
    third = TaehvTask(small(clips, tmp_path, seed=5)).model.state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not torch.equal(first["encoder.0.weight"], third["encoder.0.weight"])


def test_a_bucket_that_no_video_fills_is_refused(clips: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"\[256, 256, 8\]"):
        TaehvTask(small(clips, tmp_path, buckets=[[32, 32, 8], [256, 256, 8]]))


def test_the_same_video_cannot_be_trained_and_judged(clips: Path, tmp_path: Path) -> None:
    (tmp_path / "held").mkdir()
    make_clips(tmp_path / "held", count=1)
    task = TaehvTask(small(clips, tmp_path, held_out_root=str(tmp_path / "held")))
    assert [window.clip.path.parent for window in task.held_out()] == [tmp_path / "held"]
    (tmp_path / "both").symlink_to(clips)
    with pytest.raises(DataError, match="held_out_root"):
        TaehvTask(small(clips, tmp_path, held_out_root=str(tmp_path / "both")))
