"""What the autoencoder's step makes smaller: the weighted terms of both modes, and the adversarial one."""

import torch
from torch import Tensor

from tinyworld.config.schema import TaehvRecipe
from tinyworld.core.frames import FramePlan
from tinyworld.engine.task import Losses
from tinyworld.losses.perceptual import gms_distance, lpips_distance
from tinyworld.losses.pixel import flicker_distance, latent_moments, pixel_distance
from tinyworld.losses.seraena import Seraena, adversarial_loss, strength_for
from tinyworld.models.lpips import LPIPS
from tinyworld.models.taehv.model import with_length
from tinyworld.models.teachers import ReferenceVae


class Objective:
    """Losses of a micro-batch. Terms of weight 0 are not computed.

    teacher: needed for decoder_loss_weight alone; the latents to learn come with the call. lpips: for perceptual_kind
    lpips. seraena: the corrector, or None.
    """

    def __init__(
        self, recipe: TaehvRecipe, teacher: ReferenceVae | None, lpips: LPIPS | None, seraena: Seraena | None
    ) -> None:
        self.loss, self.seraena_config, self.part = recipe.loss, recipe.seraena, recipe.model.train_part
        self.teacher, self.lpips, self.seraena = teacher, lpips, seraena

    def __call__(
        self,
        frames: Tensor,
        plan: FramePlan,
        encoded: Tensor | None,
        decoded: Tensor | None,
        taught: Tensor | None,
        done: int,
    ) -> Losses:
        """frames: N T C H W in [0, 1], the plan's. encoded: the model's latents; taught: the teacher's; decoded: frames
        made of `taught`, or of `encoded` where there is no teacher; unclamped, fp32 or bf16. done: steps before."""
        terms: dict[str, Tensor] = {}
        monitors: dict[str, Tensor] = {}
        if encoded is not None:
            terms |= self._latents(encoded.float(), taught, monitors)
        if decoded is not None:
            made, wanted = decoded[:, : plan.target_frames].float(), frames[:, : plan.target_frames]
            terms = self._pixels(made, wanted) | terms
            if self.loss.decoder_loss_weight and self.teacher is not None:
                # All decoded frames, padding too: the target's count need not be one that the teacher takes.
                whole = with_length(frames, plan.decoded_frames)
                distance = feature_distance(self.teacher, decoded.float(), whole)
                terms["decoder"] = self.loss.decoder_loss_weight * distance
            context = taught if taught is not None else encoded
            if self.seraena is not None and context is not None and done >= self.seraena_config.seraena_start_step:
                terms["seraena"] = self._adversarial(
                    self.seraena, made, wanted, context, terms["reconstruction"], monitors
                )
        ramping = self.seraena is not None and self.seraena.learned + 1 < self.seraena_config.seraena_ramp_steps
        return Losses(terms, monitors, frozenset({"seraena"} if ramping else ()))

    def _latents(self, encoded: Tensor, taught: Tensor | None, monitors: dict[str, Tensor]) -> dict[str, Tensor]:
        own = encoded.detach()
        monitors |= {"latent_std": own.std(), "latent_mean": own.mean()}
        if self.part == "decoder":
            return {}
        if taught is not None:
            monitors["latent_error"] = (own - taught).square().mean().sqrt() / taught.std()
            weight = self.loss.encoder_loss_weight
            return {"encoder": weight * (encoded - taught).square().mean()} if weight else {}
        weight = self.loss.latent_loss_weight
        return {"latent": weight * latent_moments(encoded)} if weight else {}

    def _pixels(self, made: Tensor, wanted: Tensor) -> dict[str, Tensor]:
        loss = self.loss
        kind = loss.reconstruction_kind
        terms = {"reconstruction": loss.reconstruction_loss_weight * pixel_distance(made, wanted, kind)}
        if loss.flicker_loss_weight:
            terms["flicker"] = loss.flicker_loss_weight * flicker_distance(made, wanted, kind)
        if loss.perceptual_loss_weight and loss.perceptual_kind == "gms":
            terms["perceptual"] = loss.perceptual_loss_weight * gms_distance(made, wanted)
        elif loss.perceptual_loss_weight and self.lpips is not None:
            terms["perceptual"] = loss.perceptual_loss_weight * lpips_distance(self.lpips, made, wanted)
        return terms

    def _adversarial(
        self,
        seraena: Seraena,
        made: Tensor,
        wanted: Tensor,
        context: Tensor,
        reconstruction: Tensor,
        monitors: dict[str, Tensor],
    ) -> Tensor:
        correction = seraena.correct(wanted, made, context.detach())
        (reference,) = torch.autograd.grad(reconstruction, made, retain_graph=True)
        ratio = self.ratio(seraena.learned)
        monitors |= {
            "seraena/correction_scale": correction.scale,
            "seraena/gradient_ratio": made.new_tensor(ratio),
        }
        return adversarial_loss(made, correction.direction, strength_for(reference, correction.direction, ratio))

    def ratio(self, learned: int) -> float:
        """Adversarial gradient in multiples of the reconstruction's, once the discriminator has learned in that many steps:
        the ramp up to its weight. (Counted by the discriminator, so that one switched on in a resumed run has its ramp.)"""
        config = self.seraena_config
        return config.seraena_loss_weight * min(1.0, (learned + 1) / max(config.seraena_ramp_steps, 1))


def feature_distance(teacher: ReferenceVae, made: Tensor, wanted: Tensor) -> Tensor:
    """Distance of two clips as the teacher's encoder sees them: mean over its depths of the squared difference of the
    features, each in units of the true clip's own feature variance. Gradient to `made` alone.

    Source: feature distillation of Turbo-VAED (arXiv:2508.09136), with the frozen encoder as the judge, so that no
    projection between the two networks has to be learned.
    """
    with torch.no_grad():
        true = teacher.features(wanted)
    pairs = zip(teacher.features(made), true, strict=True)
    return torch.stack(
        [(a.float() - b.float()).square().mean() / b.float().var().clamp_min(1e-8) for a, b in pairs]
    ).mean()
