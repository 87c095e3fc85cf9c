"""The `taehv` task, mode autoencode: encoder and decoder learn together to give the clip back."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tinyworld.config.schema import TaehvRecipe
from tinyworld.core import dist, rng
from tinyworld.core.console import LOGGER
from tinyworld.core.errors import DataError
from tinyworld.core.frames import FramePlan, training_plan
from tinyworld.data.clips import ClipDataset
from tinyworld.data.loader import ClipBatch, train_batches
from tinyworld.data.order import Order
from tinyworld.data.scan import ClipRef
from tinyworld.engine.task import Evaluated, Losses, Roles
from tinyworld.losses.pixel import flicker_distance, latent_moments, pixel_distance
from tinyworld.models.taehv import Taehv, weights
from tinyworld.tasks.taehv import measure
from tinyworld.tasks.taehv.sources import buckets, find_sources


class TaehvTask:
    """Training of one tiny autoencoder from a recipe. Scans the data and builds (or reads) the model when made."""

    name = "taehv"

    def __init__(self, recipe: TaehvRecipe) -> None:
        self.recipe = recipe
        self.sources = find_sources(recipe)
        self.model = build_model(recipe)
        self.spec = self.model.spec
        self.lpips = measure.load_lpips(recipe)
        self.dataset = self._dataset(self.sources.train)
        unused = [clip.id for clip, own in zip(self.sources.train, self.dataset.bucket_of, strict=True) if not own]
        if unused:
            LOGGER.warning(
                "%d videos fit none of data.buckets and are never drawn: %s", len(unused), ", ".join(unused[:5])
            )
        if self.dataset.empty_buckets:
            sizes = ", ".join(str(list(bucket)) for bucket in self.dataset.empty_buckets)
            raise DataError(
                f"no training video is large and long enough for the clip size [height, width, n_frames] {sizes}. Leave "
                "it out, or add such videos (key: data.buckets)."
            )
        self.windows = self._readable_windows()

    def _dataset(self, clips: list[ClipRef]) -> ClipDataset:
        data = self.recipe.data
        return ClipDataset(
            clips,
            buckets(self.recipe),
            frame_steps=data.frame_steps,
            crop_scale=data.crop_scale,
            flip=data.flip,
            short_clips=data.short_clips,
            cache_bytes=data.frame_cache_mb * 2**20,
        )

    def roles(self) -> Roles:
        return Roles(trainable=self.model)

    def describe(self) -> dict[str, Any]:
        report = self.sources.report
        return {
            "clips": len(self.sources.train),
            "held_out": len(self.sources.held_out),
            "quarantined": len(report.quarantined),
            "looped": len(report.looped),
            "dropped": len(report.dropped),
            "lpips": "measured" if self.lpips is not None else "not measured (validation.lpips_backbone is unset)",
        }

    def fingerprint(self) -> dict[str, Any]:
        """Architecture and everything that the order of samples depends on."""
        training, data = self.recipe.training, self.recipe.data
        ids = hashlib.sha256("\n".join(clip.id for clip in self.sources.train).encode()).hexdigest()[:16]
        per_rank = training.train_batch_size * training.gradient_accumulation_steps
        return {
            "task": self.name,
            "model": self.spec.to_dict(),
            "seed": self.recipe.run.seed,
            "clips per step": per_rank * dist.world_size(),
            "buckets": [list(bucket) for bucket in buckets(self.recipe)],
            "windows": [list(data.frame_steps), data.crop_scale, data.flip, data.short_clips, data.pad_frames],
            "training clips": f"{len(self.sources.train)} ({ids})",
        }

    def batches(self, start_step: int, stop_step: int, rank: int, world: int) -> Iterator[Sequence[ClipBatch]]:
        training, data = self.recipe.training, self.recipe.data
        per_rank = training.train_batch_size * training.gradient_accumulation_steps
        return train_batches(
            self.dataset,
            Order(self.dataset.bucket_of, per_rank * world, self.recipe.run.seed),
            start_step=start_step,
            stop_step=stop_step,
            rank=rank,
            world=world,
            micro_batches=training.gradient_accumulation_steps,
            num_workers=data.num_workers,
            prefetch=data.prefetch_factor,
            pin=torch.cuda.is_available(),
        )

    def plan(self, n_frames: int) -> FramePlan:
        return training_plan(n_frames, self.spec, self.recipe.data.pad_frames)

    def step(self, model: nn.Module, batch: ClipBatch, device: torch.device) -> Losses:
        """Reconstruction and flicker on the decoded frames that have a target; moments of the latents."""
        frames = to_unit_range(batch.frames, device)
        plan = self.plan(frames.shape[1])
        latents, decoded = model(frames, plan)
        return autoencode_losses(latents, decoded, frames, plan, self.recipe)

    def check_faults(self, faults: Mapping[str, str]) -> None:
        self.dataset.check_faults(faults, self.recipe.data.quarantine_budget)

    def _readable_windows(self) -> list[measure.Window]:
        """The windows of the held-out videos. Each is read once now: damage found later would end training."""
        data, validation = self.recipe.data, self.recipe.validation
        height, width = validation.validation_height or data.height, validation.validation_width or data.width
        frames = validation.validation_frames or data.n_frames
        dataset = self._dataset(self.sources.held_out)
        windows, faults = [], {}
        for clip in self.sources.held_out[: validation.num_validation_samples]:
            window = measure.Window(dataset, clip, height, width, frames)
            try:
                window.frames(torch.device("cpu"))
                windows.append(window)
            except DataError as error:
                faults[str(clip.path)] = str(error)
                LOGGER.warning("held-out clip set aside: %s", error)
        dataset.check_faults(faults, data.quarantine_budget)
        if not windows:
            raise DataError(f"no held-out video can be read: {'; '.join(faults.values())}")
        self.sources.report.quarantined.extend(faults.items())
        return windows

    def held_out(self) -> Sequence[measure.Window]:
        return self.windows

    def evaluate(self, model: nn.Module, samples: Sequence[measure.Window], device: torch.device) -> list[Evaluated]:
        return measure.evaluate(as_taehv(model), samples, device, self.lpips)

    def preview(self, model: nn.Module, sample: measure.Window, device: torch.device, folder: Path) -> None:
        measure.write_preview(as_taehv(model), sample, device, folder)

    def save_weights(self, model: nn.Module, file: Path) -> None:
        weights.write_weights(file, model.state_dict(), as_taehv(model).spec)

    def load_weights(self, model: nn.Module, file: Path) -> None:
        model.load_state_dict(weights.load(file)[1])

    def export(self, model: nn.Module, folder: Path) -> None:
        as_taehv(model).save_pretrained(folder)


def build_model(recipe: TaehvRecipe) -> Taehv:
    """The model of a recipe: published or own weights when a path is given, else a seeded random start."""
    path = recipe.find("model.pretrained_model_path")
    if path is not None:
        model = Taehv.assembled(*weights.load(path, recipe.model.spec())).float()
    else:
        with rng.isolated(rng.derive_seed(recipe.run.seed, "init")):
            model = Taehv(recipe.model.spec())
    if recipe.training.gradient_checkpointing:
        model.enable_gradient_checkpointing()
    return model


def autoencode_losses(latents: Tensor, decoded: Tensor, frames: Tensor, plan: FramePlan, recipe: TaehvRecipe) -> Losses:
    """Weighted loss terms; `decoded` is unclamped and may be longer than the plan's target."""
    loss = recipe.loss
    kind = loss.reconstruction_kind
    made, wanted = decoded[:, : plan.target_frames].float(), frames[:, : plan.target_frames]
    terms = {
        "reconstruction": loss.reconstruction_loss_weight * pixel_distance(made, wanted, kind),
        "flicker": loss.flicker_loss_weight * flicker_distance(made, wanted, kind),
        "latent": loss.latent_loss_weight * latent_moments(latents),
    }
    monitors = {"latent_std": latents.detach().float().std(), "latent_mean": latents.detach().float().mean()}
    return Losses(terms, monitors)


def to_unit_range(frames: Tensor, device: torch.device) -> Tensor:
    """uint8 N T C H W to float32 in [0, 1] on `device`: the one place that casts a batch."""
    return frames.to(device, non_blocking=True).float().div_(255)


def as_taehv(model: nn.Module) -> Taehv:
    if not isinstance(model, Taehv):
        raise TypeError(f"expected a Taehv, got {type(model).__name__}")
    return model
