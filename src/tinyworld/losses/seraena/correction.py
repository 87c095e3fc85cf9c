"""The direction in which decoded frames look more real, and the loss that moves them along it. Pure functions."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tinyworld.core.errors import TrainingError
from tinyworld.core.frames import seraena_groups

PIXELS_AT_ONCE = 2**20
"""Pixels of a group that go through the discriminator at a time, which bounds its memory (about 1.5 GB). In evaluation mode
groups do not see each other, so the result is the same."""


@dataclass(frozen=True)
class Correction:
    """direction: N T 3 H W fp32, root mean square 1 over each clip (0 where the discriminator has no opinion), without
    gradient. scale: scalar, the mean over the clips of the root mean square before normalising, to be logged; not finite
    exactly when a clip's own numbers are not.
    """

    direction: Tensor
    scale: Tensor


def check_shapes(real: Tensor, fake: Tensor, latents: Tensor) -> None:
    """Raises ValueError unless real and fake are N T 3 H W of one shape and latents N L c h w of as many clips."""
    if real.shape != fake.shape or fake.ndim != 5 or fake.shape[2] != 3 or fake.numel() == 0:
        raise ValueError(
            f"Seraena takes real and decoded frames of one shape N T 3 H W, got {tuple(real.shape)}, {tuple(fake.shape)}"
        )
    if latents.ndim != 5 or len(latents) != len(fake) or latents.numel() == 0:
        raise ValueError(
            f"Seraena takes latents N L c h w of the same clips, got {tuple(latents.shape)} for {tuple(fake.shape)}"
        )


def to_groups(frames: Tensor, group: int) -> Tensor:
    """Frames N T 3 H W as N·G images 3·group H W: consecutive frames in the order of `core.frames.seraena_groups`.

    The last group is filled with the last frame, so no frame is left out; the gradient of the copies adds up to its own.
    """
    clips, count, channels, height, width = frames.shape
    plan = seraena_groups(count, group, pad=True)
    # Not by index: its gradient would add the copies up in an order that depends on threads.
    padded = torch.cat([frames, frames[:, -1:].expand(-1, plan.padding, -1, -1, -1)], dim=1)
    return padded.reshape(clips * plan.groups, group * channels, height, width)


def to_contexts(latents: Tensor, groups: int) -> Tensor:
    """Latents N L c h w averaged over time, once for each of the clip's groups: N·groups c h w, in `to_groups`' order."""
    return latents.mean(dim=1).repeat_interleave(groups, dim=0)


def raw_correction(discriminator: nn.Module, real: Tensor, fake: Tensor, latents: Tensor, group: int) -> Tensor:
    """The negative gradient, N T 3 H W fp32, with respect to the decoded frames, of the mean squared difference between
    the scores of each real and decoded group.

    Relativistic: it leads decoded frames to score like the real ones, however sure the discriminator is. Always in fp32,
    because on large frames the gradient is below fp16's range. Leaves the discriminator in evaluation mode and its
    parameters without gradient.
    """
    check_shapes(real, fake, latents)
    discriminator.eval()
    with torch.enable_grad(), torch.autocast(fake.device.type, enabled=False):
        frames = fake.detach().float().requires_grad_(True)
        fakes = to_groups(frames, group)
        reals = to_groups(real.detach().float(), group)
        contexts = to_contexts(latents.detach().float(), len(fakes) // len(fake))
        at_once = max(1, PIXELS_AT_ONCE // (fake.shape[-2] * fake.shape[-1]))
        pieces = [
            _gradient(discriminator, *part)
            for part in zip(reals.split(at_once), fakes.split(at_once), contexts.split(at_once), strict=True)
        ]
        (gradient,) = torch.autograd.grad(fakes, frames, torch.cat(pieces))
    return -gradient


def _gradient(discriminator: nn.Module, real: Tensor, fake: Tensor, context: Tensor) -> Tensor:
    with torch.no_grad():
        wanted = discriminator(real, context)
    images = fake.detach().requires_grad_(True)
    # Each group's own mean, summed: a group's gradient does not depend on how many others there are.
    loss = (discriminator(images, context) - wanted).square().mean(dim=(1, 2, 3)).sum()
    return torch.autograd.grad(loss, images)[0]


def normalise(gradient: Tensor) -> tuple[Tensor, Tensor]:
    """Each clip of N … scaled to root mean square 1, and the N values it had. A clip of zeros stays zero.

    Divided by its largest entry first: with a fixed epsilon instead, corrections of large frames, whose gradients are
    small, would fade; and squares of tiny gradients would underflow.
    """
    flat = gradient.flatten(1)
    peak = flat.abs().amax(dim=1, keepdim=True)
    unit = flat / torch.where(peak == 0, 1, peak)
    rms = unit.square().mean(dim=1, keepdim=True).sqrt()
    direction = unit / torch.where(rms == 0, 1, rms)
    return direction.view_as(gradient), (peak * rms).squeeze(1)


def correction(discriminator: nn.Module, real: Tensor, fake: Tensor, latents: Tensor, group: int) -> Correction:
    """The `Correction` of decoded frames `fake` towards `real`, both N T 3 H W in [0, 1] (decoded ones unclamped), given
    their latents N L c h w.

    A clip whose own numbers are not finite gets a direction of NaN, so that its loss is not finite either and the step
    is skipped. Raises ValueError for shapes that do not fit, and TrainingError when finite clips give a gradient that is
    not: then the discriminator is broken.
    """
    gradient = raw_correction(discriminator, real, fake, latents, group)
    sound = _finite_clips(real, fake, latents)
    gradient = torch.where(sound.view(-1, 1, 1, 1, 1), gradient, torch.nan)
    if bool((sound & ~gradient.flatten(1).isfinite().all(dim=1)).any()):
        raise TrainingError(
            "Seraena's discriminator gives a correction that is not finite for finite frames, so its weights or statistics "
            "are damaged. Go on from an earlier checkpoint with a lower seraena.seraena_learning_rate (try a tenth)."
        )
    direction, rms = normalise(gradient)
    return Correction(direction, rms.mean())


def _finite_clips(*batches: Tensor) -> Tensor:
    """Of each of the N clips, whether all its numbers are finite in every batch N …"""
    return torch.stack([batch.detach().flatten(1).isfinite().all(dim=1) for batch in batches]).all(dim=0)


def strength_for(reference_gradient: Tensor, direction: Tensor, ratio: float) -> Tensor:
    """Scalar fp32 strength with which `direction` is `ratio` times as long as `reference_gradient` (any shapes).

    Both are gradients at the decoded frames, so the adversarial loss then weighs `ratio` times the reconstruction, whatever
    the size of frames, batch or error. 0 when either is all zeros.
    """
    wanted = ratio * torch.linalg.vector_norm(reference_gradient.detach(), dtype=torch.float64)
    length = torch.linalg.vector_norm(direction, dtype=torch.float64)
    return (wanted / torch.where(length == 0, torch.inf, length)).float()


def adversarial_loss(fake: Tensor, direction: Tensor, strength: Tensor) -> Tensor:
    """Half the squared distance of decoded frames to where the correction wants them, fake + strength · direction (fixed),
    summed. Its gradient with respect to `fake` is -strength · direction, exactly.

    The target is not formed: a step of 1e-9, usual for large frames, would be lost in rounding it.
    """
    if fake.shape != direction.shape:
        raise ValueError(f"shapes differ: {tuple(fake.shape)} against {tuple(direction.shape)}")
    made = fake.float()
    moved = made - made.detach()
    return 0.5 * (moved - strength.detach() * direction.detach()).square().sum()
