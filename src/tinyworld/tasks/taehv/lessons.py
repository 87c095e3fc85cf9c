"""Where the latents that a model learns come from: the teacher in the loop, or the cache that it filled."""

from dataclasses import dataclass

from torch import Tensor

from tinyworld.core import rng
from tinyworld.core.errors import TrainingError
from tinyworld.core.frames import FramePlan, round_trip_plan
from tinyworld.core.variants import TaehvSpec
from tinyworld.data.loader import ClipBatch
from tinyworld.metrics.image import psnr, ssim
from tinyworld.models.taehv.model import pad_to_multiple, with_length
from tinyworld.models.teachers import Posterior, ReferenceVae
from tinyworld.tasks.taehv.measure import Taught


@dataclass(frozen=True)
class Lessons:
    """Latents of training clips. teacher: None when everything comes from the cache."""

    teacher: ReferenceVae | None

    def latents(self, batch: ClipBatch, frames: Tensor, plan: FramePlan) -> Tensor:
        """One draw from the teacher's posterior of each clip, fp32 N L c h w; the noise is a function of the clip's
        draw, the same whether the posterior comes from the cache or from the teacher."""
        if batch.posterior is not None:
            posterior = Posterior(*batch.posterior)
        elif self.teacher is not None:
            posterior = self.teacher.encode(taught_frames(frames, plan))
        else:
            raise TrainingError("a clip has neither a teacher nor cached latents; this is a defect of tinyworld")
        noise = rng.normal(batch.noise_seeds, posterior.mean.shape[1:])
        return posterior.sample(noise.to(posterior.mean.device))


def taught_frames(frames: Tensor, plan: FramePlan) -> Tensor:
    """The frames that the teacher is given: those that decoding gives back, so that its latents and the decoded frames
    are about the same clip. (The student's encoder looks further ahead.)"""
    return with_length(frames, plan.decoded_frames)


def teach_window(teacher: ReferenceVae, frames: Tensor, spec: TaehvSpec) -> Taught:
    """The teacher's latents of a held-out window, 1 T C H W in [0, 1], and how well it gives the window back itself."""
    plan = round_trip_plan(frames.shape[1], spec)
    latents = teacher.encode(taught_frames(pad_to_multiple(frames, spec.size_multiple), plan)).mean
    own = teacher.decode(latents)[:, : frames.shape[1], :, : frames.shape[-2], : frames.shape[-1]].clamp(0, 1)
    return Taught(latents.cpu(), float(psnr(own, frames)), float(ssim(own, frames)))
