"""The tasks `video_base`, `fantasy_world:stage1` and `fantasy_world:stage2`: a small video transformer learns to denoise, or a
geometry branch learns beside a frozen one, alone (stage 1) or with its way into the video (stage 2)."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tinyworld.config.batch import accumulations, clips_per_step
from tinyworld.config.schema import FantasyRecipe
from tinyworld.core import dist
from tinyworld.core.console import LOGGER
from tinyworld.core.errors import DataError, UserError
from tinyworld.core.pixels import to_unit_range
from tinyworld.data.entries import IncompleteCacheError
from tinyworld.data.loader import step_batches
from tinyworld.data.worlds.batch import WorldBatch, stack_worlds
from tinyworld.engine import checkpoint
from tinyworld.engine.accelerate_setup import training_device
from tinyworld.engine.task import Evaluated, Losses, Roles
from tinyworld.infer.codec import Codec, open_codec
from tinyworld.losses.flow import FlowSchedule
from tinyworld.models.fantasy import backbone_weights
from tinyworld.models.fantasy import weights as branch_weights
from tinyworld.models.fantasy.branch import GeometryBranch
from tinyworld.models.fantasy.prediction import Geometry
from tinyworld.tasks.fantasy import measure
from tinyworld.tasks.fantasy.conditions import codec_digest, condition_cache
from tinyworld.tasks.fantasy.inputs import Encoded, Inputs, assembled, drawn, encoded, recalled
from tinyworld.tasks.fantasy.made_up import made_up_batch, made_up_conditions
from tinyworld.tasks.fantasy.memory_proposals import advice
from tinyworld.tasks.fantasy.networks import build_networks
from tinyworld.tasks.fantasy.objective import flow_losses, geometry_losses, joined
from tinyworld.tasks.fantasy.sources import cached_cuts, dataset_of, find_sources, measured, order_of, wanted
from tinyworld.tasks.fantasy.usual import Usual, usual
from tinyworld.tasks.memory_advice import memory_limit

PATHS = ("model.backbone_path", "model.pretrained_model_path", "model.stage1_checkpoint", "model.codec_path")
LATE = 0.75
"""Share of a run from which on the guide's thresholds are watched."""
WATCHED = {"stage1": {"loss/depth": 0.2, "loss/point": 0.5, "loss/camera": 0.1}}
"""The guide's warning thresholds late in a stage."""


class FantasyTask:
    """Training of one video world from a recipe. Scans the data and reads the networks when made."""

    def __init__(self, recipe: FantasyRecipe) -> None:
        self.recipe = recipe
        self.name: str = recipe.task
        self.spec = recipe.spec()
        for key in PATHS:
            recipe.find(key)  # what is missing is said before any sample is looked at
        self.sources = dist.on_main(lambda: find_sources(recipe))
        self.cache = dist.on_main(lambda: condition_cache(recipe))
        self.dataset = dataset_of(recipe, self.sources.train, self.cache)
        if self.dataset.empty_buckets:
            data = recipe.data
            raise DataError(
                f"no training sample is large and long enough for clips of {data.height} x {data.width} x {data.num_frames}. "
                "Use smaller clips (keys: data.height, data.width, data.num_frames), or add such samples."
            )
        self.empty = self._check_cache()
        self.networks = build_networks(recipe)
        path = recipe.find("model.codec_path")
        device = training_device(recipe)
        precision = torch.bfloat16 if device.type == "cuda" else torch.float32
        self.codec: Codec | None = None if path is None else open_codec(path, precision, device)
        self.latents_by = dist.on_main(self._latents_digest)
        self.schedule = FlowSchedule(recipe.loss.flow_shift)
        self.windows = self._held_out_windows()
        self.usual = self._usual()

    def _check_cache(self) -> Tensor | None:
        """The empty prompt's text where there is a cache with text. Raises IncompleteCacheError before anything is loaded."""
        cache = self.cache
        if cache is None:
            return None
        dist.on_main(lambda: cache.require(*wanted(self.recipe, self.sources)))
        return None if cache.makers.text is None else cache.text("")

    def _held_out_windows(self) -> list[measure.Window]:
        """The windows that are measured, each read once to know that it can be."""
        data, found = self.recipe.data, []
        for world in measured(self.recipe, self.sources):
            window = measure.Window(self.dataset, world, data.height, data.width, data.num_frames)
            try:
                window.sample()
            except IncompleteCacheError:
                raise
            except (UserError, OSError) as error:
                LOGGER.warning("held-out sample %s is not measured: %s", world.id, error)
            else:
                found.append(window)
        return found

    def _usual(self) -> Usual | None:
        """What the training clips are in the mean, where geometry is measured."""
        if self.networks.branch is None:
            return None
        data = self.recipe.data
        return usual(self.dataset, self.sources.train, data.height, data.width, data.num_frames)

    def roles(self) -> Roles:
        frozen: dict[str, nn.Module] = {}
        if self.networks.branch is not None:
            frozen["backbone"] = self.networks.backbone
        return Roles(self.networks.trainable, frozen=frozen)

    def describe(self) -> dict[str, Any]:
        report = self.sources.report
        facts: dict[str, Any] = {
            "stage": self.recipe.stage,
            "samples": len(self.sources.train),
            "held_out": len(self.sources.held_out),
            "refused": len(report.refused),
            "dropped": len(report.dropped),
        }
        if self.networks.branch is not None:
            facts["base"] = self.networks.base_digest[:12]
        if self.networks.parent:
            own, first = (self.recipe.find(key) for key in ("model.pretrained_model_path", "model.stage1_checkpoint"))
            parent = (own or first or Path()).resolve()
            facts |= {"parent": str(parent), "parent_checkpoint": str(checkpoint.linked_to(parent) or parent)}
            facts["lineage"] = [asdict(row) for row in self.networks.parent]
        if self.recipe.stage == "stage1":
            facts["loss/diffusion"] = "a monitor: nothing that is trained reaches the video, it cannot fall"
        return facts

    def milestones(self) -> Sequence[int]:
        return []

    def fingerprint(self, done: int) -> dict[str, Any]:
        """Architecture, what is learned from, and everything that the order of samples depends on."""
        data = self.recipe.data
        ids = hashlib.sha256("\n".join(world.id for world in self.sources.train).encode()).hexdigest()[:16]
        return {
            "task": self.name,
            "model": self.spec.to_dict(),
            "base": self.networks.base_digest or "trained here",
            "latents": self.latents_by,
            "seed": self.recipe.run.seed,
            "clips per step": clips_per_step(self.recipe, dist.world_size()),
            "cached cuts": cached_cuts(self.recipe),
            "clips": [data.height, data.width, data.num_frames, list(data.frame_steps), data.max_depth],
            "cameras": [data.camera_convention, data.camera_intrinsics and list(data.camera_intrinsics)],
            "training samples": f"{len(self.sources.train)} ({ids})",
        }

    def _latents_digest(self) -> str:
        """What made the latents, in whatever precision it runs here: the cache's makers, else the codec."""
        path = self.recipe.find("model.codec_path")
        if self.cache is not None:
            makers = self.cache.makers
            return " ".join(str(part)[:16] for part in (makers.codec, makers.text, makers.image))
        assert path is not None  # the rules ask for one of the two
        return codec_digest(path)

    def batches(
        self, start_step: int, stop_step: int, rank: int, world: int, left_out: int = 0
    ) -> Iterator[Sequence[WorldBatch]]:
        data, batch = self.recipe.data, self.recipe.training.train_batch_size
        (passes,) = accumulations(self.recipe, world)
        yield from step_batches(
            self.dataset,
            stack_worlds,
            order_of(self.recipe, self.dataset, batch * passes * world),
            start_step=start_step + left_out,
            stop_step=stop_step + left_out,
            rank=rank,
            world=world,
            micro_batches=passes,
            num_workers=data.num_workers,
            prefetch=data.prefetch_factor,
            pin=training_device(self.recipe).type == "cuda",
        )

    def step(self, model: nn.Module, batch: WorldBatch, device: torch.device, done: int) -> Losses:
        batch, loss = batch.to(device), self.recipe.loss
        given = drawn(loss, batch.noise_seeds, device)
        inputs = assembled(self._encode(batch), batch, given, self.schedule, None, loss.timestep_sampling)
        if self.recipe.stage == "base":
            velocity = model(inputs.noisy, inputs.timestep, inputs.conditions)
            return flow_losses(loss, self.schedule, inputs, velocity)
        if self.recipe.stage == "stage1":
            looks = done % loss.diffusion_log_steps == 0
            velocity, made = model(*self._arguments(inputs), video=looks)
            losses = geometry_losses(loss, batch, inputs, made)
            if velocity is None:
                return losses
            return joined(losses, flow_losses(loss, self.schedule, inputs, velocity, trains=False))
        velocity, made = model(*self._arguments(inputs), steered=given.camera, interact=given.interaction)
        return joined(flow_losses(loss, self.schedule, inputs, velocity), geometry_losses(loss, batch, inputs, made))

    def _arguments(self, inputs: Inputs) -> tuple[Any, ...]:
        """What a branch is called with in either stage: the rays are shown to it where the video is given them."""
        return (
            self.networks.backbone,
            inputs.noisy,
            inputs.timestep,
            inputs.conditions,
            inputs.rays,
            inputs.given.camera,
        )

    def _encode(self, batch: WorldBatch) -> Encoded:
        if batch.conditions is not None:
            return recalled(batch.conditions, self.empty, self.spec.backbone)
        assert self.codec is not None  # the rules ask for it or for a cache
        return encoded(self.codec, batch, to_unit_range(batch.frames), self.spec.backbone)

    def dearest(self) -> tuple[WorldBatch, int] | None:
        """At step 0: stage 1 looks at the diffusion loss there."""
        if memory_limit(self.recipe) is None:
            return None
        data = self.recipe.data
        batch = made_up_batch(self.recipe.training.train_batch_size, data.height, data.width, data.num_frames)
        if data.condition_cache is None:
            return batch, 0
        return replace(batch, conditions=made_up_conditions(batch, self.spec.backbone)), 0

    def memory_advice(self) -> str:
        limit = memory_limit(self.recipe)
        return "" if limit is None else advice(self.recipe, dist.world_size(), limit[0])

    def remarks(self, step: int, means: Mapping[str, float]) -> list[str]:
        """The guide's thresholds, late in a stage."""
        if step < LATE * self.recipe.training.max_train_steps:
            return []
        limits = WATCHED.get(self.recipe.stage, {})
        return [
            f"{name} is above {limit:g} in the last quarter of {self.recipe.stage}, which the guide takes for a sign of trouble: "
            "check the data with `tinyworld data verify`, or train longer, or with a lower learning_rate"
            for name, limit in limits.items()
            if means.get(name, 0.0) > limit
        ]

    def check_faults(self, faults: Mapping[str, str]) -> None:
        self.dataset.check_faults(faults, self.recipe.data.quarantine_budget)

    def held_out(self) -> Sequence[measure.Window]:
        return self.windows

    def evaluate(self, model: nn.Module, samples: Sequence[measure.Window], device: torch.device) -> list[Evaluated]:
        sigmas = self.recipe.validation.validation_sigmas
        return measure.evaluate(
            samples, self._encode, self._predictor(model), self.schedule, sigmas, self.usual, device
        )

    def preview(self, model: nn.Module, sample: measure.Window, device: torch.device, folder: Path) -> None:
        sigma = self.recipe.validation.validation_sigmas[0]
        measure.write_preview(
            sample, self._encode, self._predictor(model), self.schedule, sigma, self.codec, device, folder
        )

    def _predictor(self, model: nn.Module) -> measure.Predict:
        def predict(inputs: Inputs, video: bool, geometry: bool) -> tuple[Tensor | None, Geometry | None]:
            plain = (inputs.noisy, inputs.timestep, inputs.conditions)
            if not isinstance(model, GeometryBranch):
                return (model(*plain).float() if video else None), None
            second = model.stage == "stage2"
            if not geometry:
                arguments = (*self._arguments(inputs), inputs.given.camera)
                return (model.velocity(*arguments) if second else self.networks.backbone(*plain)).float(), None
            steered = {"steered": inputs.given.camera} if second else {}
            velocity, made = model(*self._arguments(inputs), **steered, video=video)
            return None if velocity is None else velocity.float(), made

        return predict

    def write_weights(self, weights: Mapping[str, Tensor], file: Path) -> None:
        if self.recipe.stage == "base":
            backbone_weights.write_weights(file, weights, self.spec.backbone)
        else:
            branch_weights.save_branch(
                weights, file, self.spec, self.recipe.stage, self.networks.base_digest, self._meta()
            )

    def read_weights(self, file: Path) -> dict[str, Tensor]:
        if self.recipe.stage == "base":
            return backbone_weights.read_weights(file, self.spec.backbone)[1]
        return branch_weights.read_branch(file)[0]

    def export(self, weights: Mapping[str, Tensor], folder: Path) -> None:
        if self.recipe.stage == "base":
            backbone_weights.write_folder(folder, weights, self.spec.backbone)
        else:
            self.write_weights(weights, folder / "model.safetensors")

    def _meta(self) -> dict[str, Any]:
        """What a weight file says of the data that it comes from."""
        data, codec = self.recipe.data, self.recipe.find("model.codec_path")
        return {
            "recipe": self.recipe.name,
            "clip": [data.height, data.width, data.num_frames],
            "codec": None if codec is None else str(codec.absolute()),
            "flow_shift": self.recipe.loss.flow_shift,
            "split": [self.recipe.run.seed, data.held_out_fraction],
        }
