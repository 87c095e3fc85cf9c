"""A reference VAE that was made in Python, and students of sizes that no variant has."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.tasks.conftest import MakeRecipe
from tinyworld.core.errors import ConfigError
from tinyworld.engine.loop import run_training
from tinyworld.models.taehv import Taehv
from tinyworld.models.teachers import Posterior, ReferenceVae, TeacherFacts
from tinyworld.tasks.taehv import TaehvTask

SIZES = {"latent_channels": 6, "time_compression": 2, "patch_size": 2}
CPU = torch.device("cpu")


class Averages(ReferenceVae):
    """Latents are mean colours of blocks of 2 x 16 x 16 pixels, twice; the first frame is repeated."""

    def __init__(self, channels: int = 6) -> None:
        super().__init__(TeacherFacts("averages", "Averages", channels, 2, 16, "raw", Path(__file__)), digest="a" * 64)
        self.weight = nn.Parameter(torch.ones(1))
        self.seen: list[Tensor] = []

    def encode(self, frames: Tensor) -> Posterior:
        self.seen.append(frames)
        led = torch.cat([frames[:, :1], frames], 1).transpose(1, 2)
        mean = functional.avg_pool3d(led, (2, 16, 16)).transpose(1, 2).repeat(1, 1, 2, 1, 1) * self.weight
        return Posterior(mean, torch.full_like(mean, -30.0))

    def decode(self, latents: Tensor) -> Tensor:
        big = functional.interpolate(latents[:, :, :3].transpose(1, 2), scale_factor=(2, 16, 16))
        return big.transpose(1, 2)[:, 1:]


def test_it_teaches_in_place_of_the_one_on_disk(distil: MakeRecipe) -> None:
    recipe = distil(ref_vae_path=__file__, n_frames=8, max_train_steps=2, **SIZES)
    teacher = Averages().train()
    task = TaehvTask(recipe, teacher)
    assert not teacher.training and not teacher.weight.requires_grad
    assert task.roles().frozen["teacher"] is teacher and task.fingerprint(0)["teacher"] == teacher.digest
    teacher.seen.clear()
    (batch,) = next(iter(task.batches(0, 1, 0, 1)))
    losses = task.step(task.model, batch, CPU, 0)
    assert torch.equal(teacher.seen[0], (batch.frames.float() / 255)[:, :7])  # 4 latents decode to 7 frames
    assert set(losses.terms) == {"reconstruction", "flicker", "encoder"} and losses.total.requires_grad
    outcome = run_training(task, recipe)
    assert outcome.history[-1]["psnr"] is not None and outcome.history[-1]["baseline"]["teacher_psnr"] > 0
    spec = Taehv.from_pretrained(outcome.folder / "best_model").spec
    assert (spec.latent_channels, spec.t_down, spec.t_up, spec.spatial_compression) == (6, 2, 2, 16)


def test_a_cache_cannot_hold_its_latents(distil: MakeRecipe, tmp_path: Path) -> None:
    recipe = distil(ref_vae_path=__file__, n_frames=8, latent_cache=str(tmp_path / "cache"), **SIZES)
    with pytest.raises(ConfigError, match=r"Leave data\.latent_cache unset"):
        TaehvTask(recipe, Averages())


def test_one_that_does_not_fit_names_the_keys_that_would(distil: MakeRecipe) -> None:
    with pytest.raises(
        ConfigError, match=r"model\.latent_channels=6, model\.time_compression=2 and model\.patch_size=2, or"
    ) as refused:
        TaehvTask(distil(ref_vae_path=__file__), Averages())
    assert "Averages: 6 latent channels, 2x in time, 16x in space" in str(refused.value)


def test_a_recipe_that_learns_no_latents_has_no_use_for_one(distil: MakeRecipe) -> None:
    with pytest.raises(ConfigError, match=r"Averages.*teacher\.use_ref_vae=true"):
        TaehvTask(distil(use_ref_vae=False, ref_vae_path=None, n_frames=8, **SIZES), Averages())


def test_one_without_features_says_so(distil: MakeRecipe) -> None:
    task = TaehvTask(distil(ref_vae_path=__file__, n_frames=8, decoder_loss_weight=0.5, **SIZES), Averages())
    (batch,) = next(iter(task.batches(0, 1, 0, 1)))
    with pytest.raises(ConfigError, match=r"loss\.decoder_loss_weight=0"):
        task.step(task.model, batch, CPU, 0)


@pytest.mark.parametrize(("time", "patch"), [(2, 1), (4, 2), (8, 4)])
def test_students_of_any_size_give_every_frame_back(distil: MakeRecipe, time: int, patch: int) -> None:
    sizes: dict[str, Any] = {"latent_channels": 5, "time_compression": time, "patch_size": patch}
    recipe = distil(use_ref_vae=False, ref_vae_path=None, n_frames=2 * time, **sizes)
    spec = recipe.spec()
    assert (spec.t_down, spec.t_up, spec.spatial_compression, spec.latent_channels) == (time, time, 8 * patch, 5)
    frames = torch.rand(1, 7, 3, 32, 32)
    assert Taehv(spec).reconstruct(frames).shape == frames.shape
    with pytest.raises(ConfigError, match="data.n_frames"):
        distil(use_ref_vae=False, ref_vae_path=None, n_frames=2 * time + 1, **sizes)
    with pytest.raises(ConfigError, match="time_compression"):
        distil(time_compression=3)
