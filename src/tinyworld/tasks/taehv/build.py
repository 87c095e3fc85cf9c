"""The networks of a recipe: the autoencoder and its corrector."""

from tinyworld.config.schema import TaehvRecipe
from tinyworld.core import dist, rng
from tinyworld.losses.seraena import Seraena, SeraenaSettings
from tinyworld.models.taehv import Taehv
from tinyworld.models.taehv import weights as taehv_weights

SERAENA_WIDTHS = (1, 2, 4, 8, 8, 8)
"""Channels of the discriminator's blocks, in multiples of the first one's."""


def build_model(recipe: TaehvRecipe) -> Taehv:
    """The model of a recipe: published or own weights when a path is given, else a seeded random start.

    What `train_part` leaves out is frozen.
    """
    path = recipe.find("model.pretrained_model_path")
    if path is not None:
        model = Taehv.assembled(*taehv_weights.load(path, recipe.spec(), any_law=True)).float()
    else:
        with rng.isolated(rng.derive_seed(recipe.run.seed, "init")):
            model = Taehv(recipe.spec())
    if recipe.training.gradient_checkpointing:
        model.enable_gradient_checkpointing()
    model.encoder.requires_grad_(recipe.model.train_part != "decoder")
    model.decoder.requires_grad_(recipe.model.train_part != "encoder")
    return model


def build_seraena(recipe: TaehvRecipe) -> Seraena:
    """The corrector of a recipe, seeded; every process has its own replay buffer."""
    config = recipe.seraena
    settings = SeraenaSettings(
        group=config.n_seraena_frames,
        latent_channels=recipe.spec().latent_channels,
        widths=tuple(config.seraena_width * factor for factor in SERAENA_WIDTHS),
        learning_rate=config.seraena_learning_rate,
        buffer_bytes=config.seraena_buffer_mb * 2**20,
        buffer_device=config.seraena_buffer_device,
        seed=rng.derive_seed(recipe.run.seed, "seraena"),
    )
    return Seraena(settings, dist.rank(), dist.world_size())
