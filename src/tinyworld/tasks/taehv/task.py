"""The `taehv` task: a tiny autoencoder learns to give clips back, in its own latents (autoencode) or a teacher's (distil)."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tinyworld.config.batch import accumulations, clips_per_step
from tinyworld.config.schema import Stage, TaehvRecipe
from tinyworld.core import dist
from tinyworld.core.console import LOGGER
from tinyworld.core.errors import DataError
from tinyworld.core.frames import FramePlan, training_plan
from tinyworld.core.pixels import to_unit_range
from tinyworld.core.variants import TaehvSpec
from tinyworld.data.clips import ClipDataset
from tinyworld.data.loader import ClipBatch, train_batches
from tinyworld.engine.accelerate_setup import training_device
from tinyworld.engine.task import Auxiliary, Evaluated, Losses, Roles
from tinyworld.models.taehv import Taehv
from tinyworld.models.taehv import weights as taehv_weights
from tinyworld.models.teachers import ReferenceVae
from tinyworld.tasks.memory_advice import memory_limit
from tinyworld.tasks.taehv import measure
from tinyworld.tasks.taehv.build import build_model, build_seraena
from tinyworld.tasks.taehv.clips import cached_views, clip_dataset, latent_cache, order, uses_cache
from tinyworld.tasks.taehv.lessons import Lessons, teach_window
from tinyworld.tasks.taehv.memory_proposals import advice
from tinyworld.tasks.taehv.objective import Objective
from tinyworld.tasks.taehv.plan_memory import plan_memory
from tinyworld.tasks.taehv.reference import given_reference, open_reference
from tinyworld.tasks.taehv.sources import find_sources


class TaehvTask:
    """Training of one tiny autoencoder from a recipe. Scans the data and builds (or reads) the models when made.

    teacher: a reference VAE of your own in mode distil; else the one at teacher.ref_vae_path is opened. Raises ConfigError
    for one that the recipe has no use for or whose latents are not of the student's kind.
    """

    name = "taehv"

    def __init__(self, recipe: TaehvRecipe, teacher: ReferenceVae | None = None) -> None:
        self.recipe = recipe
        device = training_device(recipe)
        if teacher is not None:
            teacher = given_reference(recipe, teacher, device)
        elif recipe.distils:
            teacher = open_reference(recipe, device)
        self.sources = dist.on_main(lambda: find_sources(recipe))
        self.model = build_model(recipe)
        if (
            device.type == "cpu" and recipe.parallel.strategy != "zero3"
        ):  # measured there (docs/benchmarks.md), not on a GPU
            self.model.enable_folded_training()
        self.spec = self.model.spec
        self.lpips = measure.load_lpips(recipe)
        self.stages = recipe.stages()
        cache = None if teacher is None else latent_cache(recipe, teacher.digest)
        self.datasets = [clip_dataset(recipe, self.sources.train, stage, cache) for stage in self.stages]
        self._check_buckets()
        if cache is not None:
            cache.require([view for dataset in self.datasets for view in cached_views(recipe, dataset)])
        self.windows = self._readable_windows()
        self.lessons = None
        self.taught_by: dict[str, str] = {}
        if teacher is not None:
            self.windows = [_taught(window, teacher, self.spec, device) for window in self.windows]
            self.taught_by = {
                "teacher": teacher.facts.class_name,
                "latents": teacher.convention,
                "digest": teacher.digest,
            }
            if cache is not None and not recipe.loss.decoder_loss_weight:
                teacher = None  # everything it has to say is in the cache
            self.lessons = Lessons(teacher)
        self.seraena = build_seraena(recipe) if recipe.seraena.use_seraena else None
        self.objective = Objective(recipe, teacher, self.lpips, self.seraena)
        self.about = self._about()

    def _check_buckets(self) -> None:
        for stage, dataset in zip(self.stages, self.datasets, strict=True):
            unused = [clip.id for clip, own in zip(self.sources.train, dataset.bucket_of, strict=True) if not own]
            if unused:
                LOGGER.warning(
                    "%d videos fit no clip size of %s and are not drawn there: %s",
                    len(unused),
                    stage.key,
                    ", ".join(unused[:5]),
                )
            if dataset.empty_buckets:
                sizes = ", ".join(str(list(bucket)) for bucket in dataset.empty_buckets)
                raise DataError(
                    f"no training video is large and long enough for the clip size [height, width, n_frames] {sizes}. "
                    f"Leave it out, or add such videos (key: {stage.key})."
                )

    def roles(self) -> Roles:
        auxiliary: dict[str, Auxiliary] = {} if self.seraena is None else {"seraena": self.seraena}
        frozen: dict[str, nn.Module] = {}
        if self.lessons is not None and self.lessons.teacher is not None:
            frozen["teacher"] = self.lessons.teacher
        if self.lpips is not None:
            frozen["lpips"] = self.lpips
        return Roles(self.model, auxiliary, frozen)

    def describe(self) -> dict[str, Any]:
        report = self.sources.report
        return {
            "mode": "distil" if self.recipe.distils else "autoencode",
            **{key: value for key, value in self.taught_by.items() if key != "digest"},
            "clips": len(self.sources.train),
            "held_out": len(self.sources.held_out),
            "quarantined": len(report.quarantined),
            "looped": len(report.looped),
            "dropped": len(report.dropped),
            "lpips": "measured" if self.lpips is not None else "not measured (validation.lpips_backbone is unset)",
        }

    def milestones(self) -> Sequence[int]:
        """The starts of the later stages, and where Seraena's weight is full: it costs PSNR by design."""
        config = self.recipe.seraena
        full = [config.seraena_start_step + config.seraena_ramp_steps] if config.use_seraena else []
        return [stage.from_step for stage in self.stages[1:]] + full

    def fingerprint(self, done: int) -> dict[str, Any]:
        """Architecture, what is learned from, and everything that the order of samples depends on; of the stages those
        that have begun, so that later ones can still be changed."""
        data = self.recipe.data
        ids = hashlib.sha256("\n".join(clip.id for clip in self.sources.train).encode()).hexdigest()[:16]
        begun = [stage for stage in self.stages if stage.from_step < max(done, 1)]
        return {
            "task": self.name,
            "model": self.spec.to_dict(),
            "trained part": self.recipe.model.train_part,
            "teacher": self.taught_by.get("digest", "none"),
            "seed": self.recipe.run.seed,
            "clips per step": clips_per_step(self.recipe, dist.world_size())[: len(begun)],
            "stages": [[stage.from_step, [list(bucket) for bucket in stage.buckets]] for stage in begun],
            "windows": [list(data.frame_steps), data.crop_scale, data.flip, data.short_clips, data.pad_frames],
            "augmentation": [data.colour_jitter, data.clip_ends],
            "cached cuts": data.cached_crops if uses_cache(self.recipe) else 0,
            "training clips": f"{len(self.sources.train)} ({ids})",
        }

    def batches(
        self, start_step: int, stop_step: int, rank: int, world: int, left_out: int = 0
    ) -> Iterator[Sequence[ClipBatch]]:
        ends = [*(stage.from_step for stage in self.stages[1:]), stop_step]
        passes = accumulations(self.recipe, world)
        for stage, dataset, end, micro in zip(self.stages, self.datasets, ends, passes, strict=True):
            first, last = max(start_step, stage.from_step), min(stop_step, end)
            if first < last:
                yield from self._stage_batches(stage, dataset, range(first, last), rank, world, micro, left_out)

    def _stage_batches(
        self, stage: Stage, dataset: ClipDataset, steps: range, rank: int, world: int, micro: int, left_out: int
    ) -> Iterator[Sequence[ClipBatch]]:
        data = self.recipe.data
        if stage.from_step:
            sizes = ", ".join(" x ".join(map(str, bucket)) for bucket in stage.buckets)
            LOGGER.info("from step %d on: clips of %s (height x width x frames)", stage.from_step + 1, sizes)
        yield from train_batches(
            dataset,
            order(self.recipe, dataset, stage.batch * micro * world),
            start_step=steps.start - stage.from_step + left_out,
            stop_step=steps.stop - stage.from_step + left_out,
            rank=rank,
            world=world,
            micro_batches=micro,
            num_workers=data.num_workers,
            prefetch=data.prefetch_factor,
            pin=torch.cuda.is_available(),
        )

    def plan(self, n_frames: int) -> FramePlan:
        return training_plan(n_frames, self.spec, self.recipe.data.pad_frames)

    def step(self, model: nn.Module, batch: ClipBatch, device: torch.device, done: int) -> Losses:
        """Losses of a micro-batch: see `objective`. Only the parts that are trained, or needed for it, are run."""
        batch = batch.to(device)
        frames = to_unit_range(batch.frames)
        plan = self.plan(frames.shape[1])
        part = self.recipe.model.train_part
        taught = None if self.lessons is None else self.lessons.latents(batch, frames, plan)
        encode = taught is None or part != "decoder"
        decode = taught is None or part != "encoder"
        encoded, decoded = model(frames, plan, taught, encode=encode, decode=decode)
        return self.objective(frames, plan, encoded, decoded, taught, done)

    def dearest(self) -> tuple[ClipBatch, int] | None:
        if memory_limit(self.recipe) is None:
            return None
        count, height, width, n_frames = plan_memory(self.recipe, dist.world_size()).clips
        side, plan = self.spec.spatial_compression, self.plan(n_frames)
        posterior = None
        if uses_cache(self.recipe):
            zeros = torch.zeros(count, plan.latent_frames, self.spec.latent_channels, height // side, width // side)
            posterior = (zeros, zeros)
        same = [0] * count
        frames = torch.zeros(count, n_frames, 3, height, width, dtype=torch.uint8)
        batch = ClipBatch(frames, ["made up"] * count, same, same, [], same, posterior)
        return batch, self.recipe.training.max_train_steps

    def memory_advice(self) -> str:
        limit = memory_limit(self.recipe)
        return "" if limit is None else advice(self.recipe, dist.world_size(), limit[0])

    def remarks(self, step: int, means: Mapping[str, float]) -> list[str]:
        return []

    def check_faults(self, faults: Mapping[str, str]) -> None:
        self.datasets[0].check_faults(faults, self.recipe.data.quarantine_budget)

    def _readable_windows(self) -> list[measure.Window]:
        """The windows of the held-out videos, the same on every rank. Each is read once now, by one rank: damage found later
        would end training."""
        data, validation = self.recipe.data, self.recipe.validation
        height, width = validation.validation_height or data.height, validation.validation_width or data.width
        frames = validation.validation_frames or data.n_frames
        dataset = clip_dataset(self.recipe, self.sources.held_out, self.stages[0])
        clips = self.sources.held_out[: validation.num_validation_samples]
        windows = [measure.Window(dataset, clip, height, width, frames) for clip in clips]
        mine: dict[str, str] = {}
        for window in windows[dist.rank() :: dist.world_size()]:
            try:
                window.frames(torch.device("cpu"))
            except DataError as error:
                mine[str(window.clip.path)] = str(error)
        # What one rank cannot read is left out by all: they validate the same list.
        faults = {path: reason for part in dist.gather(mine) for path, reason in part.items()}
        for reason in faults.values():
            LOGGER.warning("held-out clip set aside: %s", reason)
        windows = [window for window in windows if str(window.clip.path) not in faults]
        dataset.check_faults(faults, data.quarantine_budget)
        if not windows:
            raise DataError(f"no held-out video can be read: {'; '.join(faults.values())}")
        self.sources.report.quarantined.extend(faults.items())
        return windows

    def held_out(self) -> Sequence[measure.Window]:
        return self.windows

    def evaluate(self, model: nn.Module, samples: Sequence[measure.Window], device: torch.device) -> list[Evaluated]:
        encoder_only = self.recipe.model.train_part == "encoder"
        return measure.evaluate(as_taehv(model), samples, device, self.lpips, encoder_only)

    def preview(self, model: nn.Module, sample: measure.Window, device: torch.device, folder: Path) -> None:
        encoder_only = self.recipe.model.train_part == "encoder"
        measure.write_preview(as_taehv(model), sample, device, folder, encoder_only)

    def write_weights(self, weights: Mapping[str, Tensor], file: Path) -> None:
        taehv_weights.write_weights(file, weights, self.spec, self.about)

    def read_weights(self, file: Path) -> dict[str, Tensor]:
        return taehv_weights.load(file, self.spec)[1]

    def export(self, weights: Mapping[str, Tensor], folder: Path) -> None:
        taehv_weights.write_folder(folder, weights, self.spec, self.about)

    def _about(self) -> dict[str, Any]:
        """What a weight file says of itself beside its architecture."""
        model = self.recipe.model
        parent = self.recipe.find("model.pretrained_model_path")
        known: Mapping[str, str] = self.taught_by or {"latents": "own"}
        if not self.taught_by and parent is not None and model.train_part != "both":
            known = taehv_weights.read_about(
                parent
            )  # the part that was kept speaks the latents that its weights came with
        learned: dict[str, Any] = {key: known[key] for key in ("latents", "teacher") if key in known}
        return {"variant": model.variant, **learned, "recipe": self.recipe.name}


def _taught(window: measure.Window, teacher: ReferenceVae, spec: TaehvSpec, device: torch.device) -> measure.Window:
    return replace(window, taught=teach_window(teacher, window.frames(device), spec))


def as_taehv(model: nn.Module) -> Taehv:
    if not isinstance(model, Taehv):
        raise TypeError(f"expected a Taehv, got {type(model).__name__}")
    return model
