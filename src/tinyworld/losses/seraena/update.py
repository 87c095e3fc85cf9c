"""One step of the discriminator, taken by all ranks together: real and decoded groups in, equal weights out."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.distributed
from torch import Tensor
from torch.nn import functional

from tinyworld.core import dist
from tinyworld.core.errors import TrainingError
from tinyworld.losses.seraena.replay import ReplayBuffer, shape_of
from tinyworld.models.seraena import SeraenaDiscriminator

REAL, FRESH, OLD = 0, 1, 2
"""Where a group that the discriminator judges comes from: the clip, its decoding, or the replay buffer."""


@dataclass(frozen=True)
class Shown:
    """What one micro-batch showed the discriminator, in groups. All three are rounded as the buffer rounds, so that neither
    age nor number type gives a decoded group away.

    real, fake: uint8 M 3·group H W. contexts: fp16 M c h w.
    """

    real: Tensor
    fake: Tensor
    contexts: Tensor


@dataclass(frozen=True)
class Judged:
    """A batch for the discriminator: images M 3·group H W in [0, 1], contexts M c h w, and where each comes from (M)."""

    images: Tensor
    contexts: Tensor
    origin: Tensor


def compose(shown: Shown, buffer: ReplayBuffer, generator: torch.Generator) -> Judged:
    """Every group twice: as it really is and decoded; half of the decoded ones are replaced by older ones of the same
    shape, once the buffer holds as many. All draws are from `generator` and the buffer's.

    (The published recipe shows each group once, real or decoded by a coin. With the few groups of a micro-batch the
    pictures' own differences then drown what tells them apart: docs/lab-log.md.)
    """
    size, shape = len(shown.fake), shape_of(shown.fake, shown.contexts)
    fakes, contexts, origin = shown.fake.clone(), shown.contexts.clone(), torch.full((size,), FRESH)
    old = (size + int(torch.randint(2, (), generator=generator))) // 2  # of an odd number, the half by turns
    if 1 <= old <= buffer.count(shape):
        places = torch.randperm(size, generator=generator)[:old]
        old_fakes, old_contexts = buffer.draw(shape, old)
        fakes[places.to(fakes.device)] = old_fakes.to(fakes.device)
        contexts[places.to(fakes.device)] = old_contexts.to(fakes.device)
        origin[places] = OLD
    images = torch.cat([shown.real, fakes])
    origin = torch.cat([torch.full((size,), REAL), origin])
    return Judged(images.float() / 255, torch.cat([shown.contexts, contexts]).float(), origin)


def step(
    discriminator: SeraenaDiscriminator, optimizer: torch.optim.Optimizer, judged: Judged
) -> tuple[Tensor, Tensor]:
    """One optimizer step on the mean of all ranks' gradients. Returns the loss, the mean over ranks (a scalar), and whether
    each of this rank's groups was told right (M booleans).

    Loss: mean squared distance of all scores to +1 for decoded groups, -1 for real ones. Every rank must call it; weights,
    optimizer state and BatchNorm statistics that were equal on all ranks stay so. Raises TrainingError on all ranks when
    loss or gradient is not finite on any.
    """
    discriminator.train()
    with torch.enable_grad(), torch.autocast(judged.images.device.type, enabled=False):
        scores = discriminator(judged.images, judged.contexts)
        target = (judged.origin != REAL).to(scores).mul(2).sub(1)
        loss = functional.mse_loss(scores, target.view(-1, 1, 1, 1).expand_as(scores))
        optimizer.zero_grad()
        loss.backward()
    loss = loss.detach()
    gradients = [p.grad for p in discriminator.parameters() if p.grad is not None]
    average_over_ranks([loss, *gradients, *_statistics(discriminator)])
    # After averaging: a number that is not finite on one rank has spread to all of them by now.
    finite = torch.stack([tensor.isfinite().all() for tensor in (loss, *gradients)]).all()
    if dist.agree(not bool(finite)):
        raise TrainingError(
            "the loss or the gradient of Seraena's discriminator is not finite. Go on from the newest checkpoint with a "
            "lower seraena.seraena_learning_rate (try a tenth), or with seraena.use_seraena=false."
        )
    optimizer.step()
    optimizer.zero_grad()
    return loss, scores.detach().mean(dim=(1, 2, 3)).sign() == target


def _statistics(discriminator: SeraenaDiscriminator) -> Iterator[Tensor]:
    """BatchNorm's running means and variances, which each rank has just updated with its own groups."""
    return (buffer for buffer in discriminator.buffers() if buffer.is_floating_point())


@torch.no_grad()
def average_over_ranks(tensors: list[Tensor]) -> None:
    """Replace each tensor by its mean over ranks, in one collective; with one rank nothing happens."""
    if not dist.active():
        return
    flat = torch.cat([tensor.flatten() for tensor in tensors])
    torch.distributed.all_reduce(flat)
    flat /= dist.world_size()
    for tensor, mean in zip(tensors, flat.split([tensor.numel() for tensor in tensors]), strict=True):
        tensor.copy_(mean.view_as(tensor))
