"""Seraena, the adversarial corrector: a discriminator, trained beside the autoencoder, whose gradient says in which direction
decoded frames look more like real ones. Source: github.com/madebyollin/seraena (ideas and structure).

`correction` is the direction and the loss that follows it, `replay` the memory of earlier decoded frames, `update` one
step of the discriminator, `corrector` all of it as a helper of a training task.
"""

from tinyworld.losses.seraena.correction import Correction, adversarial_loss, strength_for
from tinyworld.losses.seraena.corrector import Seraena, SeraenaSettings

__all__ = ["Correction", "Seraena", "SeraenaSettings", "adversarial_loss", "strength_for"]
