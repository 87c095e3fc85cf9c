"""What a training step makes smaller: flow matching and geometry, and what is logged beside them."""

import torch
from torch import Tensor

from tinyworld.config.fantasy import FantasyLossConfig
from tinyworld.core.geometry import encode_pose
from tinyworld.data.worlds.batch import WorldBatch
from tinyworld.engine.task import Losses
from tinyworld.losses.flow import FlowSchedule, flow_loss
from tinyworld.losses.geometry import camera_loss, depth_terms, point_terms
from tinyworld.models.fantasy.prediction import Geometry
from tinyworld.tasks.fantasy.inputs import Inputs

LEVELS = {"low": (0.0, 1 / 3), "middle": (1 / 3, 2 / 3), "high": (2 / 3, 1.0)}
"""Noise levels that losses are logged apart for: sigma above the first bound, up to the second."""


def flow_losses(
    loss: FantasyLossConfig, schedule: FlowSchedule, inputs: Inputs, velocity: Tensor, trains: bool = True
) -> Losses:
    """Flow matching of a batch. `trains`: it is a term; otherwise it is only logged."""
    each = flow_loss(velocity, inputs.latents, inputs.noise, schedule.weight(inputs.index))
    mean = each.mean()
    terms = {"diffusion": loss.diffusion_loss_weight * mean} if trains and loss.diffusion_loss_weight else {}
    return Losses(terms, {"loss/diffusion": mean.detach()}, levels=by_level("diffusion", each.detach(), inputs.sigma))


def geometry_losses(loss: FantasyLossConfig, batch: WorldBatch, inputs: Inputs, made: Geometry) -> Losses:
    """Depth, points and cameras of a batch. The logged loss/depth and loss/point are mean errors, without confidence, which
    lets the terms themselves go below zero."""
    depth = depth_terms(
        made.depth,
        made.depth_confidence,
        batch.depth,
        batch.mask,
        alpha=loss.confidence_alpha,
        temporal_weight=loss.depth_temporal_weight,
    )
    point = point_terms(made.points, made.point_confidence, batch.points, batch.mask, alpha=loss.confidence_alpha)
    camera, parts = camera_loss(made.poses, encode_pose(batch.cameras), batch.usable)
    weights = {"depth": loss.depth_loss_weight, "point": loss.point_loss_weight, "camera": loss.camera_loss_weight}
    values = {"depth": depth.loss, "point": point.loss, "camera": camera}
    terms = {name: loss.geometry_loss_weight * weight * values[name] for name, weight in weights.items() if weight > 0}
    monitors = {
        "loss/depth": depth.regression,
        "loss/point": point.regression,
        "loss/camera": camera.detach(),
        "depth/gradient": depth.gradient,
        "depth/temporal": depth.temporal,
        "point/gradient": point.gradient,
        **{f"camera/{name}": value for name, value in parts.items()},
    }
    with torch.no_grad():
        errors = torch.where(batch.mask, (made.depth - batch.depth).abs(), 0.0).flatten(1).sum(1)
        each = errors / batch.mask.flatten(1).sum(1).clamp_min(1)
    return Losses(terms, monitors, levels=by_level("depth", each, inputs.sigma))


def joined(first: Losses, second: Losses) -> Losses:
    """The terms, monitors and levels of both."""
    return Losses(first.terms | second.terms, first.monitors | second.monitors, levels=first.levels | second.levels)


def by_level(name: str, each: Tensor, sigma: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
    """Sum and count of the samples' values (N) in each range of noise levels."""
    found = {}
    for level, (low, high) in LEVELS.items():
        inside = ((sigma > low) & (sigma <= high)).to(each.dtype)
        found[f"sigma_{level}/{name}"] = ((each * inside).sum(), inside.sum())
    return found
