"""The sections that every family of recipes shares: run, optimizer, training, checkpoint, validation.

Values are strict: a number written as text, `true` for a count or an unknown key is refused and never bent into shape.
Leaf names are unique over all sections of a recipe, so that `--seed 3` and `--run.seed 3` mean the same.
"""

from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

MAX_SEED = 2**32 - 1


LARGEST = 10**12
"""No key counts further than this; what is larger is a slip of the keyboard."""


def _integral(value: object) -> object:
    """1e5 and 100000.0 mean a whole number where one is asked for."""
    if isinstance(value, int | float) and abs(value) > LARGEST:
        raise ValueError("too large")
    return int(value) if isinstance(value, float) and value.is_integer() else value


FOLDER_NAME = r"^[^./\\\s][^/\\\s]*$"

Whole = Annotated[int, BeforeValidator(_integral)]
Count = Annotated[Whole, Field(ge=1)]
Switch = Annotated[bool, Field(strict=False)]
"""true or false, also yes, no, on, off."""
Text = Annotated[str, Field(min_length=1)]
Share = Annotated[float, Field(ge=0, le=1)]
Weight = Annotated[float, Field(ge=0)]


class Section(BaseModel):
    """A group of keys in a recipe: frozen, strict, no unknown keys, finite numbers only."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class RunConfig(Section):
    """where the run is written, on which device it runs and what watches it"""

    output_dir: Text = Field(
        default="output",
        description="Folder in which the run folder is made. Relative paths start at the working directory.",
        json_schema_extra={"metavar": "DIR"},
    )
    run_name: Text | None = Field(
        default=None,
        pattern=FOLDER_NAME,
        description="Name of the run folder. Unset: the recipe's name and the start time.",
        json_schema_extra={
            "expects": "a folder name without slashes and spaces, not beginning with a dot",
            "metavar": "NAME",
        },
    )
    seed: Whole = Field(
        default=0, ge=0, le=MAX_SEED, description="Start of every random draw: weights, order, crops, split."
    )
    tracker_name: Literal["tensorboard", "wandb", "none"] = Field(
        default="tensorboard", description="Where curves go beside journal.jsonl, which is always written."
    )
    device: Literal["auto", "cpu", "cuda"] = Field(
        default="auto", description="auto takes CUDA when there is a GPU, else the CPU."
    )
    cpu_threads: Whole = Field(
        default=0,
        ge=0,
        le=1024,
        description="CPU threads of the math library in each process; 0 leaves the library's own choice.",
    )
    gpu_memory: Text | None = Field(
        default=None,
        pattern=r"^\d+(\.\d+)? ?(GiB|GB|MiB|MB)$",
        description="Memory that a plan has to fit into, per process. Unset: what the GPU here has.",
        json_schema_extra={"expects": "a size such as 40GiB, 80GB or 8000MiB", "metavar": "SIZE"},
    )


class ParallelConfig(Section):
    """how the processes of a run share the work, and how long one may keep the others waiting"""

    strategy: Literal["ddp", "zero2", "zero3", "fsdp2"] = Field(
        default="ddp",
        description="What every process holds. ddp: everything. zero2 (DeepSpeed): all weights, its share of gradients and "
        "optimizer state. zero3 (DeepSpeed) and fsdp2: its share of all three.",
    )
    cpu_offload: Switch = Field(
        default=False,
        description="Keep optimizer state (zero2), or weights and optimizer state (zero3, fsdp2), in main memory.",
    )
    global_batch_size: Count | None = Field(
        default=None,
        description="Clips per optimizer step over all processes; gradient_accumulation_steps follows from it. Unset: "
        "train_batch_size x gradient_accumulation_steps x processes.",
    )
    startup_timeout: Count = Field(
        default=1800, description="Seconds that a process may take in one phase before the first step."
    )
    step_timeout: Count = Field(
        default=600,
        description="Seconds that a process may take in one phase of a step, a save or a validated batch before the run is "
        "stopped and the late one named.",
    )


class OptimizerConfig(Section):
    """AdamW and the course of its learning rate, in optimizer steps"""

    learning_rate: float = Field(
        default=1e-4, gt=0, le=1, description="Highest learning rate of AdamW, reached after the warm-up."
    )
    adam_beta1: float = Field(
        default=0.9, ge=0, lt=1, description="Decay of AdamW's running mean of the gradient, per step."
    )
    adam_beta2: float = Field(
        default=0.99, ge=0, lt=1, description="Decay of AdamW's running mean of its square, per step."
    )
    adam_epsilon: float = Field(default=1e-8, gt=0, description="Added to AdamW's denominator.")
    weight_decay: float = Field(
        default=0.0, ge=0, description="Decoupled weight decay, as a fraction per unit of learning rate."
    )
    lr_scheduler: Literal["constant", "cosine", "linear"] = Field(
        default="constant", description="Course of the learning rate after the warm-up, until max_train_steps."
    )
    lr_warmup_steps: Whole = Field(
        default=0, ge=0, description="Optimizer steps over which the learning rate rises from 0."
    )
    lr_end_factor: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="Learning rate at the last step as a fraction of learning_rate (cosine and linear).",
    )


class TrainingConfig(Section):
    """how many steps of which size, and in which precision"""

    train_batch_size: Count = Field(default=2, description="Clips per process in one forward pass.")
    gradient_accumulation_steps: Count = Field(
        default=1,
        description="Forward passes per optimizer step; clips per step = train_batch_size x this x processes.",
    )
    max_train_steps: Count = Field(description="Optimizer steps of the whole run, counted from its very start.")
    max_grad_norm: float = Field(
        default=1.0, gt=0, description="The gradient of a step is scaled down to this L2 norm."
    )
    mixed_precision: Literal["bf16", "no"] = Field(
        default="bf16", description="Number type of the arithmetic; the weights themselves are always kept in fp32."
    )
    gradient_checkpointing: Switch = Field(
        default=False, description="Recompute inner values in the backward pass: less memory, about a third more time."
    )
    ema_decay: float = Field(
        default=0.999,
        ge=0,
        lt=1,
        description="Decay per optimizer step of the averaged weights that are evaluated; 0 is off.",
    )
    log_steps: Count = Field(default=10, description="Optimizer steps between two lines in the log and the tracker.")
    memory_log_steps: Count = Field(default=50, description="Optimizer steps between two memory lines.")
    max_skipped_steps: Count = Field(
        default=20,
        description="Steps in a row that may be skipped, with rewinds between them, before the run stops.",
    )
    spike_factor: float = Field(
        default=30.0,
        ge=0,
        description="A step is skipped when its loss lies this many times the recent spread above the recent median; 0 is off.",
    )
    rewind_after: Whole = Field(
        default=5,
        ge=0,
        description="Skipped steps in a row after which the run goes back to its newest checkpoint and leaves out the samples "
        "since then; 0 never does.",
    )
    max_rewinds: Whole = Field(default=3, ge=0, description="Rewinds of a run before it stops instead.")


class CheckpointConfig(Section):
    """what is saved, how much of it is kept, and where a run goes on"""

    checkpointing_steps: Count = Field(default=500, description="Optimizer steps between two checkpoints.")
    checkpoints_total_limit: Whole = Field(
        default=5, ge=0, description="Newest checkpoints that are kept; 0 keeps all. The best model is kept besides."
    )
    resume_from_checkpoint: Text | None = Field(
        default=None,
        description="Checkpoint to go on from: latest (the newest that verifies), checkpoint-N, or a path.",
        json_schema_extra={"metavar": "latest|NAME|PATH"},
    )
    background_save: Switch = Field(
        default=True,
        description="Write checkpoints beside the training; a step waits only while they are copied to main memory.",
    )
    preemption_notice: Count = Field(
        default=30,
        description="Seconds between a scheduler's SIGTERM and its SIGKILL; a save that takes longer is warned of.",
    )


class ValidationConfig(Section):
    """what is measured on the held-out videos, how often, and what follows from it"""

    validation_steps: Count = Field(default=1000, description="Optimizer steps between two validations.")
    num_validation_samples: Count = Field(
        default=20, description="Held-out clips that are measured; fewer when fewer videos are held out."
    )
    validation_batch_size: Count = Field(default=2, description="Clips per forward pass in a validation.")
    metric_for_best_model: str = Field(description="Metric that picks the best model and stops early.")
    early_stopping_patience: Whole = Field(
        default=5, ge=0, description="Validations in a row without a better value before the run stops; 0 is off."
    )
    validation_time_limit: Whole = Field(
        default=1800, ge=0, description="Seconds after which a validation is given up and not counted; 0 is no limit."
    )
    num_preview_clips: Whole = Field(
        default=4, ge=0, description="Held-out clips written as side-by-side videos at each validation; 0 writes none."
    )
