"""What each part of a run of the `taehv` task needs on its device, counted on the meta device with the code that runs."""

from collections.abc import Callable, Hashable
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from tinyworld.config.schema import TaehvRecipe
from tinyworld.core.errors import MissingFileError, WeightsError
from tinyworld.core.frames import round_trip_plan, seraena_groups, training_plan
from tinyworld.engine.memory import Counted, count
from tinyworld.losses.seraena.correction import PIXELS_AT_ONCE, Correction, normalise, to_contexts, to_groups
from tinyworld.losses.seraena.corrector import faint
from tinyworld.models.seraena import SeraenaDiscriminator
from tinyworld.models.taehv import Taehv
from tinyworld.models.teachers import TeacherFacts, read_facts
from tinyworld.models.teachers.facts import read_config
from tinyworld.models.teachers.features import encoder_features
from tinyworld.models.teachers.place import CONFIG_NAME, SUBFOLDER
from tinyworld.tasks.memory_plan import Clips
from tinyworld.tasks.taehv.build import SERAENA_WIDTHS
from tinyworld.tasks.taehv.objective import Objective
from tinyworld.tasks.taehv.reference import DTYPES

_KNOWN: dict[Hashable, Counted] = {}


def _once(key: Hashable, work: Callable[[], Counted]) -> Counted:
    """The count of `key`, made once: proposals ask for many plans that differ in few parts."""
    if key not in _KNOWN:
        _KNOWN[key] = work()
    return _KNOWN[key]


class EmptyReference:
    """A reference VAE without weights, of the class and size that its config.json describes.

    Raises MissingFileError when it is not there, WeightsError when its config describes no supported VAE.
    """

    def __init__(self, path: Path | str, dtype: torch.dtype, tiling: bool, slicing: bool) -> None:
        self.facts, self.dtype, self.tiling = read_facts(path), dtype, tiling
        self.vae = _empty_vae(self.facts, dtype, tiling)
        self._clip_by_clip = slicing or self.facts.kind == "hunyuan1_5"
        self.key: Hashable = (self.facts, dtype, tiling, slicing)

    def encoding(self, clips: int, height: int, width: int, frames: int) -> Counted:
        """As `Teacher.encode` of that many clips."""
        size = (clips, height, width, frames)
        return _once((self.key, "encoding", size), lambda: count([self.vae], lambda: self._encode(*size)))

    def teaching(self, height: int, width: int, latents: int, frames: int) -> Counted:
        """As `lessons.teach_window`: one clip encoded and decoded."""
        side = self.facts.spatial_compression

        @torch.no_grad()
        def run() -> None:
            self._encode(1, height, width, frames)
            size = (1, self.facts.latent_channels, latents, height // side, width // side)
            noisy = torch.empty(size, dtype=self.dtype, device="meta")
            given = [noisy, noisy.new_zeros(1)] if self.vae.config.get("timestep_conditioning") else [noisy]
            self.vae.decode(*given).sample.float()

        return _once(
            (self.facts, self.dtype, self.tiling, "teaching", height, width, latents), lambda: count([self.vae], run)
        )

    def features(self, frames: Tensor) -> list[Tensor]:
        """As `Teacher.features`, so that `objective.feature_distance` can ask it."""
        signed = self._signed(frames)
        batches = [encoder_features(self.vae, batch) for batch in self._batches(signed)]
        return [torch.cat(stage).float() for stage in zip(*batches, strict=True)]

    @torch.no_grad()
    def _encode(self, clips: int, height: int, width: int, frames: int) -> None:
        signed = self._signed(torch.empty(clips, frames, 3, height, width, device="meta"))
        torch.cat([self.vae.encode(batch).latent_dist.parameters for batch in self._batches(signed)])

    def _signed(self, frames: Tensor) -> Tensor:
        return (frames * 2 - 1).transpose(1, 2).to(self.dtype).contiguous()

    def _batches(self, frames: Tensor) -> tuple[Tensor, ...]:
        return frames.split(1) if self._clip_by_clip else (frames,)


@lru_cache(maxsize=4)
def _empty_vae(facts: TeacherFacts, dtype: torch.dtype, tiling: bool) -> Any:
    import diffusers

    with torch.device("meta"):
        vae = getattr(diffusers, facts.class_name).from_config(read_config(facts.path))
    vae = nn.Module.to(vae, dtype).eval().requires_grad_(False)
    if tiling:
        vae.enable_tiling()
    return vae


def empty_reference(recipe: TaehvRecipe) -> EmptyReference | None:
    """The recipe's reference VAE; None in mode autoencode, and for one whose config.json is not on this machine: opening it
    fetches it, or says why not."""
    if not recipe.distils:
        return None
    teacher = recipe.teacher
    try:
        path = recipe.find_or_hub("teacher.ref_vae_path")
        place = path if isinstance(path, Path) else _fetched(str(path))
        if place is None:
            return None
        return EmptyReference(place, DTYPES[teacher.ref_vae_dtype], teacher.ref_vae_tiling, teacher.ref_vae_slicing)
    except (MissingFileError, WeightsError):
        return None


def _fetched(repository: str) -> Path | None:
    """Folder of the config.json of a VAE that the hub's cache has."""
    from huggingface_hub import try_to_load_from_cache

    for name in (f"{SUBFOLDER}/{CONFIG_NAME}", CONFIG_NAME):
        if isinstance(file := try_to_load_from_cache(repository, name), str):
            return Path(file).parent
    return None


class EmptySeraena:
    """Seraena's correction without content: what `objective` asks of it in a step."""

    learned = 0

    def __init__(self, recipe: TaehvRecipe) -> None:
        config = recipe.seraena
        self.group = config.n_seraena_frames
        widths = [config.seraena_width * factor for factor in SERAENA_WIDTHS]
        with torch.device("meta"):
            self.discriminator = SeraenaDiscriminator(self.group, recipe.spec().latent_channels, widths)

    def correct(self, real: Tensor, fake: Tensor, latents: Tensor) -> Correction:
        """The tensors of `losses.seraena.correction.correction`, which itself asks for contents and for autocast."""
        self.discriminator.eval()
        with torch.enable_grad():
            frames = fake.detach().float().requires_grad_(True)
            fakes, reals = to_groups(frames, self.group), to_groups(real.detach().float(), self.group)
            contexts = to_contexts(faint(latents), len(fakes) // len(fake))
            at_once = max(1, PIXELS_AT_ONCE // (fake.shape[-2] * fake.shape[-1]))
            parts = zip(reals.split(at_once), fakes.split(at_once), contexts.split(at_once), strict=True)
            (gradient,) = torch.autograd.grad(fakes, frames, torch.cat([self._gradient(*part) for part in parts]))
        direction, rms = normalise(-gradient)
        return Correction(direction, rms.mean())

    def _gradient(self, real: Tensor, fake: Tensor, context: Tensor) -> Tensor:
        with torch.no_grad():
            wanted = self.discriminator(real, context)
        images = fake.detach().requires_grad_(True)
        loss = (self.discriminator(images, context) - wanted).square().sum()
        return torch.autograd.grad(loss, images)[0]


def stepping(
    recipe: TaehvRecipe, clips: Clips, reference: EmptyReference | None, seraena: EmptySeraena | None
) -> Counted:
    """Forward and backward pass of one micro-batch, every term of the loss included but LPIPS."""
    training, judge = recipe.training, reference if recipe.loss.decoder_loss_weight else None
    key = (
        "step", clips, recipe.model, recipe.loss, recipe.seraena, recipe.distils, recipe.data.pad_frames,
        training.gradient_checkpointing, training.mixed_precision, None if judge is None else judge.key,
    )  # fmt: skip
    return _once(key, lambda: _stepping(recipe, clips, judge, seraena))


def _stepping(recipe: TaehvRecipe, clips: Clips, judge: EmptyReference | None, seraena: EmptySeraena | None) -> Counted:
    batch, height, width, n_frames = clips
    model = empty_model(recipe)
    half = recipe.training.mixed_precision == "bf16"
    objective = Objective(recipe, judge, None, seraena)  # type: ignore[arg-type]
    plan = training_plan(n_frames, model.spec, recipe.data.pad_frames)
    part, side = recipe.model.train_part, model.spec.spatial_compression

    def forward() -> Tensor:
        """As `TaehvTask.step`: frames and losses in fp32, the network in the recipe's precision."""
        frames = torch.empty(batch, n_frames, 3, height, width, device="meta")
        size = (batch, plan.latent_frames, model.spec.latent_channels, height // side, width // side)
        taught = torch.empty(size, device="meta") if recipe.distils else None
        encoded, decoded = network(
            frames.bfloat16() if half else frames,
            plan,
            taught.bfloat16() if half and taught is not None else taught,
            encode=not recipe.distils or part != "decoder",
            decode=not recipe.distils or part != "encoder",
        )
        return objective(frames, plan, encoded, decoded, taught, recipe.training.max_train_steps).total

    network: nn.Module = model.to(torch.bfloat16) if half else model
    others = [] if seraena is None else [seraena.discriminator]
    return count([network, *others, *([] if judge is None else [judge.vae])], forward)


def empty_model(recipe: TaehvRecipe) -> Taehv:
    """The recipe's model on the meta device, frozen and checkpointed as `build_model` does."""
    with torch.device("meta"):
        model = Taehv(recipe.spec())
    part = recipe.model.train_part
    model.encoder.requires_grad_(part != "decoder")
    model.decoder.requires_grad_(part != "encoder")
    if recipe.training.gradient_checkpointing:
        model.enable_gradient_checkpointing()
    return model


def learning(recipe: TaehvRecipe, clips: Clips, seraena: EmptySeraena) -> Counted:
    """One update of Seraena's discriminator on a micro-batch: each group as it is and decoded, in fp32."""
    groups, height, width = _groups(recipe, clips), *clips[1:3]
    channels, side = recipe.spec().latent_channels, recipe.spec().spatial_compression
    network = seraena.discriminator

    def forward() -> Tensor:
        shown = torch.empty(2 * groups, 3 * seraena.group, height, width, dtype=torch.uint8, device="meta")
        contexts = torch.empty(2 * groups, channels, height // side, width // side, device="meta")
        scores = network.train()(shown.float() / 255, contexts)
        return functional.mse_loss(scores, torch.ones_like(scores))

    key = ("learning", groups, height, width, channels, recipe.seraena)
    return _once(key, lambda: count([network], forward))


def shown_bytes(recipe: TaehvRecipe, clips: Clips, micro_batches: int) -> int:
    """The 8-bit groups, true and decoded, that wait for the discriminator's turn at the end of a step."""
    _, height, width, _ = clips
    group = 3 * recipe.seraena.n_seraena_frames * height * width
    return 2 * group * _groups(recipe, clips) * micro_batches


def taught_count(recipe: TaehvRecipe, clips: Clips) -> int:
    """Frames of a training clip that the reference VAE is given: `lessons.taught_frames`."""
    return training_plan(clips[3], recipe.spec(), recipe.data.pad_frames).decoded_frames


def _groups(recipe: TaehvRecipe, clips: Clips) -> int:
    batch, _, _, n_frames = clips
    plan = training_plan(n_frames, recipe.spec(), recipe.data.pad_frames)
    return batch * seraena_groups(plan.target_frames, recipe.seraena.n_seraena_frames, pad=True).groups


def measured_clips(recipe: TaehvRecipe) -> Clips:
    """The clips of a validation's forward pass."""
    data, own = recipe.data, recipe.validation
    return (
        min(own.validation_batch_size, own.num_validation_samples),
        own.validation_height or data.height,
        own.validation_width or data.width,
        own.validation_frames or data.n_frames,
    )


def validating(recipe: TaehvRecipe) -> Counted:
    """The round trip of a validation's batch, in fp32."""
    batch, height, width, n_frames = measured_clips(recipe)
    model = empty_model(recipe)
    side = model.spec.size_multiple
    height, width = (-(-size // side) * side for size in (height, width))

    @torch.no_grad()
    def run() -> None:
        frames = torch.empty(batch, n_frames, 3, height, width, device="meta")
        latents = model.encode(frames, round_trip=True)
        made = model.decode(latents, n_frames)
        again = model.decode(latents, n_frames) if recipe.distils else made
        del made, again

    key = ("validating", model.spec, batch, height, width, n_frames, recipe.distils)
    return _once(key, lambda: count([model], run))


def teaching(recipe: TaehvRecipe, reference: EmptyReference) -> Counted:
    """The reference VAE encodes and decodes one held-out clip, before the first step."""
    _, height, width, n_frames = measured_clips(recipe)
    side = recipe.spec().size_multiple
    height, width = (-(-size // side) * side for size in (height, width))
    plan = round_trip_plan(n_frames, recipe.spec())
    return reference.teaching(height, width, plan.latent_frames, plan.decoded_frames)
