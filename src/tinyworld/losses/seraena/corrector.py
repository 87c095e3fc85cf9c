"""Seraena as a helper of a training task: corrects each micro-batch, learns after each step, saved with each checkpoint."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from tinyworld.core import dist, rng
from tinyworld.core.errors import CheckpointError, TrainingError
from tinyworld.losses.seraena.correction import Correction, correction, to_contexts, to_groups
from tinyworld.losses.seraena.replay import MEBIBYTE, ReplayBuffer
from tinyworld.losses.seraena.update import FRESH, OLD, REAL, Shown, compose, step
from tinyworld.models.seraena import WIDTHS, SeraenaDiscriminator

CONTEXT_RMS = 0.1
"""Size of the latents that the discriminator is given, about that of fine detail in its pictures (in [-1, 1]). At their
own size, 1 or 2 in normalised latents, they drown the detail that it is to judge, and it learns nothing for hundreds
of steps (docs/lab-log.md)."""
ORIGINS = {"real": REAL, "fresh": FRESH, "buffer": OLD}


@dataclass(frozen=True)
class SeraenaSettings:
    """group: frames judged together. widths: channels of the discriminator's six blocks. buffer_bytes: of each rank's
    replay buffer. buffer_device: main memory, or beside the model. The optimizer is AdamW."""

    group: int
    latent_channels: int
    buffer_bytes: int
    seed: int
    widths: tuple[int, ...] = WIDTHS
    learning_rate: float = 3e-4
    betas: tuple[float, float] = (0.9, 0.99)
    buffer_device: Literal["cpu", "training"] = "cpu"

    def architecture(self) -> dict[str, Any]:
        """What weights of a discriminator depend on."""
        return {"group": self.group, "latent_channels": self.latent_channels, "widths": list(self.widths)}


class Seraena:
    """A discriminator, its optimizer and this rank's replay buffer (an `engine.task.Auxiliary`).

    All ranks must call `learn` together, after equally many `correct`; the discriminator then stays bit-equal on them, while
    each has its own buffer.
    """

    def __init__(self, settings: SeraenaSettings, rank: int, world: int) -> None:
        self.settings = settings
        with rng.isolated(rng.derive_seed(settings.seed, "seraena", "discriminator")):
            self.discriminator = SeraenaDiscriminator(settings.group, settings.latent_channels, settings.widths)
        self.optimizer = torch.optim.AdamW(
            self.discriminator.parameters(), lr=settings.learning_rate, betas=settings.betas
        )
        self.device = torch.device("cpu")
        self.buffer = ReplayBuffer(
            settings.buffer_bytes, rng.derive_seed(settings.seed, "seraena", "replay", rank, world), self.device
        )
        self._generator = torch.Generator().manual_seed(rng.derive_seed(settings.seed, "seraena", "coins", rank, world))
        self._shown: list[Shown | None] = []
        self.learned = 0
        """Optimizer steps after which it has learned."""

    def to(self, device: torch.device) -> None:
        """Move discriminator, optimizer state and, with buffer_device "training", the buffer."""
        self.device = device
        self.discriminator.to(device)
        self.optimizer.load_state_dict(self.optimizer.state_dict())  # which puts its tensors beside the weights
        if self.settings.buffer_device == "training":
            self.buffer.to(device)

    def correct(self, real: Tensor, fake: Tensor, latents: Tensor) -> Correction:
        """The direction in which each decoded clip looks more real, and what `learn` needs is kept.

        real, fake: N T 3 H W, RGB in [0, 1], the decoded ones unclamped and without gradient from here. latents: N L c h w,
        what they were decoded from. Any T: the last group is filled with the last frame. Clips with numbers that are not
        finite get a direction of NaN. Nothing is communicated. Raises ValueError for shapes that do not fit, TrainingError
        when the discriminator fails.
        """
        latents = faint(latents.detach())
        found = correction(self.discriminator, real, fake, latents, self.settings.group)
        self._shown.append(self._show(real, fake, latents) if bool(found.scale.isfinite()) else None)
        return found

    @torch.no_grad()
    def _show(self, real: Tensor, fake: Tensor, latents: Tensor) -> Shown:
        group = self.settings.group
        reals, fakes = (to_groups(_bytes(frames), group) for frames in (real, fake))
        return Shown(reals, fakes, to_contexts(latents.float(), len(fakes) // len(fake)).half())

    def learn(self) -> dict[str, float]:
        """One update of the discriminator for each micro-batch that `correct` saw; their decoded groups enter the buffer.

        Returns, over all ranks: mean loss, the share of groups told right by where they come from (of those that there
        were) and the mean size of the buffers; nothing when nothing was shown. Raises TrainingError on all ranks when
        numbers are not finite on any.
        """
        shown, self._shown = self._shown, []
        if dist.agree(any(batch is None for batch in shown)):
            raise TrainingError(
                "an optimizer step was made on decoded clips that are not finite, so the weights are damaged. Go on from the "
                "newest checkpoint with a lower optimizer.learning_rate."
            )
        if not shown:
            return {}
        self.learned += 1
        losses: list[Tensor] = []
        counts = dict.fromkeys((*ORIGINS, *(f"{name} right" for name in ORIGINS)), 0.0)
        for batch in shown:
            assert batch is not None
            judged = compose(batch, self.buffer, self._generator)
            loss, right = step(self.discriminator, self.optimizer, judged)
            self.buffer.put(batch.fake, batch.contexts)
            losses.append(loss)
            for name, origin in ORIGINS.items():
                counts[name] += float((judged.origin == origin).sum())
                counts[f"{name} right"] += float(right.cpu()[judged.origin == origin].sum())
        means = dist.mean_over_ranks({**counts, "buffer_mb": self.buffer.bytes / MEBIBYTE})
        shares = {f"accuracy_{name}": means[f"{name} right"] / means[name] for name in ORIGINS if means[name]}
        numbers = {"discriminator_loss": float(torch.stack(losses).mean()), **shares, "buffer_mb": means["buffer_mb"]}
        return {f"seraena/{name}": value for name, value in numbers.items()}

    def forget(self) -> None:
        """Drop what `correct` saw since the last `learn`."""
        self._shown = []

    def state_dict(self) -> dict[str, Any]:
        """Discriminator and optimizer: equal on all ranks."""
        return {
            "architecture": self.settings.architecture(),
            "discriminator": self.discriminator.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "learned": self.learned,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state_dict`, with the learning rate of the settings. Raises CheckpointError for another network."""
        saved, ours = state["architecture"], self.settings.architecture()
        if saved != ours:
            wrong = ", ".join(f"{key} {saved[key]} instead of {ours[key]}" for key in ours if saved[key] != ours[key])
            raise CheckpointError(
                f"the checkpoint's Seraena discriminator is another network: {wrong}. Go on with the values it was trained "
                "with (keys: seraena.n_seraena_frames, seraena.seraena_width, model.variant)."
            )
        self.discriminator.load_state_dict(state["discriminator"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.learned = int(state["learned"])
        for parameters in self.optimizer.param_groups:
            parameters.update(lr=self.settings.learning_rate, betas=self.settings.betas)

    def rank_state(self) -> dict[str, Any]:
        """This rank's replay buffer and generator, copied."""
        return {"buffer": self.buffer.state_dict(), "generator": self._generator.get_state()}

    def load_rank_state(self, state: dict[str, Any]) -> None:
        """Go on from `rank_state`."""
        self.buffer.load_state_dict(state["buffer"])
        self._generator.set_state(state["generator"])

    def take_share(self, states: Iterable[dict[str, Any]], rank: int, world: int) -> None:
        """Go on from the `rank_state`s of a run of another size: the entries of its buffers are dealt out anew."""
        self.buffer.take_share((state["buffer"] for state in states), rank, world)

    def most_bytes(self) -> int:
        """The discriminator with AdamW's two moments, and a full buffer."""
        return 3 * sum(p.nbytes for p in self.discriminator.parameters()) + self.settings.buffer_bytes


def faint(latents: Tensor) -> Tensor:
    """The same latents N L c h w with an RMS of CONTEXT_RMS in each clip; one of zeros stays so."""
    rms = latents.float().square().flatten(1).mean(dim=1).sqrt()
    return latents.float() * (CONTEXT_RMS / rms.clamp_min(1e-12)).view(-1, 1, 1, 1, 1)


def _bytes(frames: Tensor) -> Tensor:
    """[0, 1] floats to uint8, rounded and clamped, as a written video would show them."""
    return (frames.detach().float().clamp(0, 1) * 255).round().to(torch.uint8)
