"""What training asks of a reference VAE, whichever it is: the base class of `Teacher`, and of one of your own."""

from torch import Tensor, nn

from tinyworld.core.errors import ConfigError
from tinyworld.models.teachers.facts import TeacherFacts
from tinyworld.models.teachers.latents import Convention, Posterior


class ReferenceVae(nn.Module):
    """A frozen video VAE whose latents a student learns. `TaehvTask(recipe, teacher)` takes one of your own.

    facts: latent channels, compression, class name and frame counts: t·k + 1 frames make k + 1 latents (the kind
    "cogvideox" also takes t·k). digest: tells it from every other reference VAE, other weights of the same class included;
    checkpoints go by it. `tinyworld data cache` opens those of diffusers only, so one of your own runs while training.
    """

    def __init__(self, facts: TeacherFacts, digest: str) -> None:
        super().__init__()
        self.facts, self.digest = facts, digest

    @property
    def convention(self) -> Convention:
        """How its latents are stated."""
        return self.facts.convention

    def train(self, mode: bool = True) -> "ReferenceVae":
        """Stays in eval mode, whatever the module it belongs to does."""
        super().train(False)
        return self

    def encode(self, frames: Tensor) -> Posterior:
        """N T 3 H W float32 in [0, 1] to N L c h w on the same device, L = `facts.latent_count(T)`."""
        raise NotImplementedError

    def decode(self, latents: Tensor) -> Tensor:
        """N L c h w to its own pictures, N T 3 H W float32, about [0, 1], T = `facts.decoded_count(L)`: what a student's
        pictures are measured beside."""
        raise NotImplementedError

    def features(self, frames: Tensor) -> list[Tensor]:
        """Activations of its encoder, each N t C h w, with gradient to the frames. Raises ConfigError without any."""
        raise ConfigError(
            f"The reference VAE {self.facts.class_name} shows no features of its encoder, which decoder_loss_weight "
            "compares. Set loss.decoder_loss_weight=0, or give its class a method features()."
        )
