"""What a TAEHV recipe holds: every key with its unit, range, default and meaning.

A family of models is one `Recipe` class: the shared sections plus its own data, model and loss sections, entered in
`FAMILIES` under the name that `task:` gives.
"""

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, PrivateAttr

from tinyworld.config.sections import (
    FOLDER_NAME,
    CheckpointConfig,
    Count,
    OptimizerConfig,
    RunConfig,
    Section,
    Switch,
    Text,
    TrainingConfig,
    ValidationConfig,
    Whole,
)
from tinyworld.core import files
from tinyworld.core.variants import TaehvSpec, variant

EMBEDDED_ROOMS = "rooms"
"""The value of `data_root` that names the embedded data set instead of a folder."""

Width = Annotated[Count, Field(le=4096)]
Bucket = Annotated[tuple[Count, Count, Count], Field(strict=False)]


class Recipe(Section):
    """The part that recipes of every family share. Equal recipes have equal values, wherever they were read from."""

    task: str = Field(description="Family of models that the recipe trains.")
    name: Text = Field(
        pattern=FOLDER_NAME,
        description="Name of the recipe, for logs and run folders.",
        json_schema_extra={
            "metavar": "NAME",
            "default": "the file's name",
            "expects": "a name without slashes and spaces, not beginning with a dot",
        },
    )
    run: RunConfig = RunConfig()
    data: Section
    model: Section
    loss: Section
    optimizer: OptimizerConfig = OptimizerConfig()
    training: TrainingConfig
    checkpoint: CheckpointConfig = CheckpointConfig()
    validation: ValidationConfig = ValidationConfig()
    _source_folder: Path | None = PrivateAttr(default=None)

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and isinstance(other, Recipe) and self.model_dump() == other.model_dump()

    @property
    def source_folder(self) -> Path | None:
        """Folder of the recipe file, for `core.files.find`; None for a bundled recipe and one made in Python."""
        return self._source_folder

    def anchored(self) -> "Recipe":
        """The same recipe with every path that exists made absolute, so that it means the same from any folder."""
        changes: dict[str, Section] = {}
        for name in type(self).model_fields:
            section = getattr(self, name)
            if isinstance(section, Section):
                extras = {leaf: field.json_schema_extra for leaf, field in type(section).model_fields.items()}
                paths = [leaf for leaf, extra in extras.items() if isinstance(extra, dict) and "path" in extra]
                found = {leaf: self.find(f"{name}.{leaf}") for leaf in paths}
                changes[name] = section.model_copy(update={leaf: str(path) for leaf, path in found.items() if path})
        return self.model_copy(update=changes)

    def find(self, key: str) -> Path | None:
        """The existing file or folder that a path key names, e.g. `recipe.find("model.pretrained_model_path")`.

        Looks from the working directory, then beside the recipe file. None when the key is unset or names the embedded
        data set. Raises MissingFileError with every place that was looked at.
        """
        section_name, _, leaf = key.partition(".")
        section = getattr(self, section_name)
        value = getattr(section, leaf)
        if value is None or (leaf == "data_root" and value == EMBEDDED_ROOMS):
            return None
        extra: Any = type(section).model_fields[leaf].json_schema_extra
        return files.find(value, beside=self._source_folder, what=extra["path"], key=key)


class TaehvDataConfig(Section):
    """which videos, and how a training clip is cut out of them"""

    data_root: Text = Field(
        description="Folder of training videos; rooms names the embedded data set (./rooms a folder of that name).",
        json_schema_extra={"path": "data folder", "metavar": "DIR"},
    )
    annotation_file: Text | None = Field(
        default=None,
        description="JSON list of the videos to use and their captions. Unset: every video below data_root.",
        json_schema_extra={"path": "annotation file", "metavar": "FILE"},
    )
    height: Count = Field(
        description="Height of a clip in pixels: a multiple of the variant's size step (8, 16 or 32)."
    )
    width: Count = Field(description="Width of a clip in pixels: a multiple of the variant's size step (8, 16 or 32).")
    n_frames: Count = Field(
        le=100_000, description="Frames of a training clip; must fill whole latents unless pad_frames is true."
    )
    pad_frames: Switch = Field(
        default=False,
        description="Allow any n_frames: repeat the last frame up to whole latents and mask the surplus in the loss.",
    )
    buckets: Annotated[tuple[Bucket, ...], Field(strict=False)] = Field(
        default=(),
        description="Clip sizes [height, width, n_frames] that batches are drawn from. Empty: height x width x n_frames.",
    )
    crop_scale: Literal["native", "cover", "random"] = Field(
        default="native",
        description="native crops at the video's own scale, cover after shrinking it to the clip's size, random at a "
        "scale drawn between the two.",
    )
    frame_steps: Annotated[tuple[Count, ...], Field(strict=False, min_length=1)] = Field(
        default=(1,), description="Steps between the frames of a clip, in frames of the video; one is drawn per clip."
    )
    flip: Switch = Field(default=True, description="Mirror half of the training clips left to right.")
    short_clips: Literal["loop", "drop"] = Field(
        default="loop",
        description="Videos with too few frames for a clip: repeated until long enough, or left out.",
    )
    held_out_fraction: float = Field(
        default=0.1, gt=0, lt=1, description="Share of the videos kept for validation, at least one, never trained on."
    )
    held_out_root: Text | None = Field(
        default=None,
        description="Folder of videos to validate on instead of a share of data_root.",
        json_schema_extra={"path": "folder of held-out videos", "metavar": "DIR"},
    )
    quarantine_budget: float = Field(
        default=0.05, ge=0, le=1, description="Share of the videos that may be unreadable before the run stops."
    )
    num_workers: Whole = Field(
        default=2,
        ge=0,
        description="Processes that read videos, per training process; 0 reads in the training process.",
    )
    frame_cache_mb: Whole = Field(
        default=0,
        ge=0,
        description="Memory for decoded videos in each reading process, in MiB: small data sets are decoded once. 0 is off.",
    )
    prefetch_factor: Count = Field(default=2, description="Batches that each reading process prepares ahead.")


class TaehvModelConfig(Section):
    """which tiny autoencoder, and the weights it starts from"""

    variant: Text = Field(
        default="taecvx",
        description="Architecture by name: taehv, taew2_1, taecvx, taeos1_3, taew2_2, taehv1_5, taeh3, taeltx_2, "
        "taeltx2_3, taew2_2_super, taehv1_5_super.",
        json_schema_extra={"metavar": "NAME"},
    )
    pretrained_model_path: Text | None = Field(
        default=None,
        description="Weights to start from: a published .pth or .safetensors, or a folder saved by a run. Unset: from "
        "scratch.",
        json_schema_extra={"path": "weights file", "metavar": "PATH"},
    )
    encoder_width: Width | None = Field(default=None, description="Channels of the encoder. Unset: the variant's.")
    decoder_widths: Annotated[tuple[Width, Width, Width, Width], Field(strict=False)] | None = Field(
        default=None,
        description="Channels of the decoder's four stages, first the smallest picture. Unset: the variant's.",
    )

    def spec(self) -> TaehvSpec:
        """The architecture that the section describes. Raises ConfigError for an unknown variant.

        An autoencoder that learns its own latents follows the plain temporal law also where the variant is CogVideoX's:
        that law aligns even and odd latent counts differently, and one causal network can learn only one of the two.
        """
        spec = variant(self.variant)
        return replace(
            spec,
            flavour="plain" if spec.flavour == "cogvideox" else spec.flavour,
            encoder_width=self.encoder_width or spec.encoder_width,
            decoder_widths=self.decoder_widths or spec.decoder_widths,
        )


class TaehvLossConfig(Section):
    """what the steps make smaller: the weighted sum of these terms"""

    reconstruction_loss_weight: float = Field(
        default=10.0, gt=0, description="Weight of the difference between decoded and true pixels (pixels in [0, 1])."
    )
    reconstruction_kind: Literal["mse", "l1", "charbonnier"] = Field(
        default="mse", description="How a pixel difference counts: squared, absolute, or smoothly absolute."
    )
    flicker_loss_weight: float = Field(
        default=1.0, ge=0, description="Weight of the difference between decoded and true change from frame to frame."
    )
    latent_loss_weight: float = Field(
        default=0.01, ge=0, description="Weight of the pull of the latents towards mean 0 and standard deviation 1."
    )


class TaehvRecipe(Recipe):
    """A training run of a tiny causal video autoencoder."""

    task: Literal["taehv"] = Field(default="taehv", description="Family of models that the recipe trains.")
    data: TaehvDataConfig
    model: TaehvModelConfig = TaehvModelConfig()
    loss: TaehvLossConfig = TaehvLossConfig()


FAMILIES: dict[str, type[TaehvRecipe]] = {"taehv": TaehvRecipe}
