"""What a recipe holds: every key with its unit, range, default and meaning.

A family of models is one `Recipe` class: the shared sections plus its own data, model and loss sections, entered in
`FAMILIES` under the name that `task:` gives.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, PrivateAttr

from tinyworld.config.fantasy import (
    FantasyDataConfig,
    FantasyLossConfig,
    FantasyModelConfig,
    FantasyValidationConfig,
)
from tinyworld.config.sections import (
    FOLDER_NAME,
    CheckpointConfig,
    OptimizerConfig,
    ParallelConfig,
    RunConfig,
    Section,
    Text,
    TrainingConfig,
    ValidationConfig,
)
from tinyworld.config.taehv import (
    SeraenaConfig,
    TaehvDataConfig,
    TaehvLossConfig,
    TaehvModelConfig,
    TaehvValidationConfig,
    TeacherConfig,
)
from tinyworld.core import files
from tinyworld.core.errors import MissingFileError
from tinyworld.core.variants import TaehvSpec
from tinyworld.core.world_sizes import WorldSpec, world_size

EMBEDDED_ROOMS = "rooms"
"""The value of `data_root` that names the embedded data set instead of a folder."""


def is_hub_id(value: str) -> bool:
    """Whether a path key's value reads as a model on the hub: owner/name, no further slash, no file ending."""
    owner, slash, name = value.partition("/")
    return (
        bool(slash and owner and name)
        and "/" not in name
        and not value.startswith((".", "~"))
        and not name.endswith((".pth", ".pt", ".safetensors"))
    )


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
    parallel: ParallelConfig = ParallelConfig()
    data: Section
    model: Section
    loss: Section
    optimizer: OptimizerConfig = OptimizerConfig()
    training: TrainingConfig
    checkpoint: CheckpointConfig = CheckpointConfig()
    validation: ValidationConfig
    _source_folder: Path | None = PrivateAttr(default=None)

    def stages(self) -> list["Stage"]:
        """What training clips look like, from step 0 on."""
        raise NotImplementedError

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and isinstance(other, Recipe) and self.model_dump() == other.model_dump()

    @property
    def source_folder(self) -> Path | None:
        """Folder of the recipe file, for `core.files.find`; None for a bundled recipe and one made in Python."""
        return self._source_folder

    def anchored(self) -> "Recipe":
        """The same recipe with every path that exists, or is written to, made absolute: it means the same from any folder."""
        changes: dict[str, Section] = {}
        for name in type(self).model_fields:
            section = getattr(self, name)
            if isinstance(section, Section):
                extras = {leaf: field.json_schema_extra for leaf, field in type(section).model_fields.items()}
                paths = [leaf for leaf, extra in extras.items() if isinstance(extra, dict) and "path" in extra]
                found = {leaf: self.find(f"{name}.{leaf}") for leaf in paths}
                made = [leaf for leaf, extra in extras.items() if isinstance(extra, dict) and "made" in extra]
                found |= {
                    leaf: Path(getattr(section, leaf)).expanduser().absolute()
                    for leaf in made
                    if getattr(section, leaf)
                }
                changes[name] = section.model_copy(update={leaf: str(path) for leaf, path in found.items() if path})
        return self.model_copy(update=changes)

    def find(self, key: str) -> Path | None:
        """The existing file or folder that a path key names, e.g. `recipe.find("model.pretrained_model_path")`.

        Looks from the working directory, then beside the recipe file. None when the key is unset, names the embedded
        data set or a model on the hub. Raises MissingFileError with every place that was looked at.
        """
        section_name, _, leaf = key.partition(".")
        section = getattr(self, section_name)
        value = getattr(section, leaf)
        extra: Any = type(section).model_fields[leaf].json_schema_extra
        if value is None or (extra.get("rooms") and value == EMBEDDED_ROOMS):
            return None
        try:
            return files.find(value, beside=self._source_folder, what=extra["path"], key=key)
        except MissingFileError:
            if extra.get("hub") and is_hub_id(value):
                return None
            raise

    def find_or_hub(self, key: str) -> Path | str | None:
        """As `find`, and for keys that also take a hub id ("owner/name") that id when nothing of the name is there."""
        section_name, _, leaf = key.partition(".")
        value: str | None = getattr(getattr(self, section_name), leaf)
        return self.find(key) or value


@dataclass(frozen=True)
class Stage:
    """What training clips look like from an optimizer step on. buckets: (height, width, n_frames)."""

    from_step: int
    buckets: tuple[tuple[int, int, int], ...]
    batch: int
    key: str
    """Where the recipe says so, for messages: "data" or "data.stages[1]"."""
    batch_key: str = "training.train_batch_size"
    """The key that sets `batch`."""


class TaehvRecipe(Recipe):
    """A training run of a tiny causal video autoencoder."""

    task: Literal["taehv"] = Field(default="taehv", description="Family of models that the recipe trains.")
    data: TaehvDataConfig
    model: TaehvModelConfig = TaehvModelConfig()
    teacher: TeacherConfig = TeacherConfig()
    loss: TaehvLossConfig = TaehvLossConfig()
    seraena: SeraenaConfig = SeraenaConfig()
    validation: TaehvValidationConfig = TaehvValidationConfig()

    @property
    def distils(self) -> bool:
        """Mode distil (a reference VAE's latents) rather than autoencode (the model's own)."""
        return self.teacher.use_ref_vae

    def spec(self) -> TaehvSpec:
        """The architecture. Raises ConfigError for an unknown variant."""
        return self.model.spec(self.distils)

    def stages(self) -> list[Stage]:
        """The data section's clip sizes from step 0 on, then those of `data.stages`."""
        data, batch = self.data, self.training.train_batch_size
        found = [Stage(0, data.buckets or ((data.height, data.width, data.n_frames),), batch, "data")]
        for number, stage in enumerate(data.stages):
            sizes = stage.buckets or ((stage.height, stage.width, stage.n_frames),)
            key, own = f"data.stages[{number}]", stage.train_batch_size
            batch_key = f"{key}.train_batch_size" if own else Stage.batch_key
            found.append(Stage(stage.from_step, sizes, own or batch, key, batch_key))
        return found


class FantasyRecipe(Recipe):
    """A training run of a video world: the small video transformer itself, or the geometry branch beside a frozen one."""

    task: Literal["video_base", "fantasy_world:stage1", "fantasy_world:stage2"] = Field(
        description="What is trained: the video transformer itself (demo size), the geometry branch beside the frozen "
        "transformer, or branch, camera adapters and cross-attentions together."
    )
    data: FantasyDataConfig
    model: FantasyModelConfig = FantasyModelConfig()
    loss: FantasyLossConfig = FantasyLossConfig()
    validation: FantasyValidationConfig = FantasyValidationConfig()

    @property
    def stage(self) -> Literal["base", "stage1", "stage2"]:
        """The part of the task's name that tells what is trained."""
        match self.task:
            case "video_base":
                return "base"
            case "fantasy_world:stage1":
                return "stage1"
        return "stage2"

    def spec(self) -> WorldSpec:
        """The sizes of transformer and branch."""
        return world_size(self.model.size)

    def stages(self) -> list[Stage]:
        data = self.data
        return [Stage(0, ((data.height, data.width, data.num_frames),), self.training.train_batch_size, "data")]


FAMILIES: dict[str, type[Recipe]] = {
    "taehv": TaehvRecipe,
    "video_base": FantasyRecipe,
    "fantasy_world:stage1": FantasyRecipe,
    "fantasy_world:stage2": FantasyRecipe,
}
"""`task:` → the class of its recipes."""
RECIPE_OF_TASK = {"fantasy_world:stage1": "fantasy_stage1", "fantasy_world:stage2": "fantasy_stage2"}
"""The recipe that is meant where only a task is named, as the guide does."""
