"""Which keys of a recipe may change when a run goes on from a checkpoint, and what follows. No torch.

`python -m tinyworld.config.resume` prints the table of docs/resume-rules.md.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from tinyworld.config.keys import Key, keys
from tinyworld.config.schema import FAMILIES, Recipe

Kind = Literal["free", "warned", "forbidden"]
PROCESSES = "processes"
"""Stands beside the keys: the number of processes is no key of a recipe."""
MEANING: dict[Kind, str] = {
    "free": "changes nothing that is learned; logged",
    "warned": "the rest of the run learns differently, or its numbers differ in the last bits; logged as a warning",
    "forbidden": "refused when it changes what was already learned: architecture, order of samples, begun stages",
}

RULES: dict[tuple[Kind, str], str] = {
    ("free", "names and places"): "name output_dir run_name resume_from_checkpoint",
    ("free", "what is written and shown"): "tracker_name log_steps memory_log_steps num_preview_clips",
    ("free", "saving"): "checkpointing_steps checkpoints_total_limit background_save preemption_notice",
    ("free", "time limits and a memory limit"): "startup_timeout step_timeout validation_time_limit gpu_memory",
    ("free", "when a run gives up"): "max_skipped_steps max_rewinds early_stopping_patience quarantine_budget",
    ("free", "how often and in which batches it is measured"): "validation_steps validation_batch_size lpips_backbone",
    ("free", "reading ahead"): "num_workers frame_cache_mb prefetch_factor",
    ("free", "how often stage 1 looks at the diffusion loss"): "diffusion_log_steps",
    (
        "free",
        "where parts that are not trained lie; a backbone is known by its digest",
    ): "backbone_path encoders_path",
    ("free", "where Seraena's older frames lie"): "seraena_buffer_device",
    ("free", "weights come from the checkpoint"): "pretrained_model_path stage1_checkpoint",
    ("warned", "the course of the learning rate"): (
        "learning_rate lr_scheduler lr_warmup_steps lr_end_factor max_train_steps seraena_learning_rate"
    ),
    ("warned", "the optimizer"): "adam_beta1 adam_beta2 adam_epsilon weight_decay max_grad_norm",
    ("warned", "the averaged weights; from 0 it cannot be switched on"): "ema_decay",
    ("warned", "what the loss weighs"): (
        "reconstruction_loss_weight encoder_loss_weight decoder_loss_weight perceptual_loss_weight perceptual_kind "
        "reconstruction_kind flicker_loss_weight latent_loss_weight diffusion_loss_weight geometry_loss_weight "
        "depth_loss_weight depth_temporal_weight point_loss_weight camera_loss_weight confidence_alpha"
    ),
    ("warned", "which noise levels are drawn"): "flow_shift timestep_sampling",
    ("warned", "what the model is left to do without"): (
        "text_dropout image_dropout camera_dropout interaction_dropout"
    ),
    ("warned", "Seraena, and what it remembers"): (
        "use_seraena seraena_loss_weight seraena_start_step seraena_ramp_steps seraena_buffer_mb"
    ),
    ("warned", "which steps are skipped or taken back"): "spike_factor rewind_after",
    ("warned", "the arithmetic, in the last bits or more"): (
        "device cpu_threads strategy cpu_offload mixed_precision gradient_checkpointing ref_vae_slicing backbone_dtype"
    ),
    ("warned", "what is measured: numbers before and after do not compare"): (
        "num_validation_samples validation_height validation_width validation_frames metric_for_best_model validation_sigmas"
    ),
    ("forbidden", "the family"): "task",
    ("forbidden", "the architecture"): (
        "variant encoder_width decoder_widths latent_channels time_compression patch_size train_part size"
    ),
    ("forbidden", "Seraena's discriminator"): "n_seraena_frames seraena_width",
    ("forbidden", "the start of every random draw"): "seed",
    ("forbidden", "clips per optimizer step, as a product"): (
        "train_batch_size gradient_accumulation_steps global_batch_size"
    ),
    ("forbidden", "the training videos, by their names"): (
        "data_root annotation_file held_out_root held_out_fraction short_clips dataset_base_path dataset_metadata_path"
    ),
    (
        "forbidden",
        "clip sizes; stages that have not begun may change",
    ): "height width n_frames num_frames buckets stages",
    (
        "forbidden",
        "how a clip is cut and changed",
    ): "pad_frames crop_scale frame_steps flip colour_jitter clip_ends max_depth",
    ("forbidden", "cuts of cached latents"): "latent_cache condition_cache cached_crops",
    ("forbidden", "what the camera files mean"): "camera_convention camera_intrinsics",
    ("forbidden", "the latents that are learned, by the digest of what makes them"): (
        "use_ref_vae ref_vae_path ref_vae_dtype ref_vae_tiling latent_convention codec_path"
    ),
}
"""(kind, what the keys are about) → keys by their leaf names, each in one place."""

_BY_LEAF: dict[str, tuple[Kind, str]] = {leaf: rule for rule, leaves in RULES.items() for leaf in leaves.split()}


@dataclass(frozen=True)
class Change:
    """One key that differs. before, after: as a recipe would state them."""

    key: str
    before: str
    after: str
    kind: Kind

    def __str__(self) -> str:
        return f"{self.key}: {self.before} → {self.after}"


def kind_of(key: str, recipe: Recipe) -> Kind:
    """The class of a key (dotted) in this recipe. max_train_steps is free while the learning rate is constant: only a
    schedule that falls until then depends on it. Raises KeyError for a key without a class, which is a defect.
    """
    if key == "training.max_train_steps" and recipe.optimizer.lr_scheduler == "constant":
        return "free"
    return _BY_LEAF[key.rpartition(".")[2]][0]


def changes(saved: Mapping[str, Any], now: Recipe, processes: tuple[int, int] | None = None) -> list[Change]:
    """What differs between a checkpoint's recipe (its config.yaml, parsed) and the one that goes on, in the schema's order.

    Paths are compared as `Recipe.anchored` states them, which is what a run writes. A key that `saved` does not have has
    its default there; one that exists no longer is warned of. processes: of the run before and of this one, if known.
    Keys of the kind "forbidden" are listed whenever they differ: the task's fingerprint decides, by what was learned.
    Raises MissingFileError as `Recipe.find`.
    """
    values = now.anchored().model_dump(mode="json")
    known = list(keys(type(now)))
    found = []
    for key in known:
        before, after = _value(saved, key, _default(key)), _value(values, key, None)
        if before != after:
            found.append(Change(key.dotted, _shown(before), _shown(after), kind_of(key.dotted, now)))
    found += [Change(name, _shown(value), "(no such key)", "warned") for name, value in _gone(saved, known)]
    if processes is not None and processes[0] != processes[1]:
        found.append(Change(PROCESSES, str(processes[0]), str(processes[1]), "warned"))
    return found


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _value(values: Mapping[str, Any], key: Key, default: Any) -> Any:
    section = values.get(key.section) if key.section else values
    return section.get(key.leaf, default) if isinstance(section, Mapping) else default


def _default(key: Key) -> Any:
    default = None if key.field.is_required() else key.field.default
    return list(default) if isinstance(default, tuple) else default


def _gone(saved: Mapping[str, Any], known: list[Key]) -> list[tuple[str, Any]]:
    names = {key.dotted for key in known}
    given = [
        (f"{section}.{leaf}", value)
        for section, content in saved.items()
        if isinstance(content, Mapping)
        for leaf, value in content.items()
    ]
    given += [(name, value) for name, value in saved.items() if not isinstance(value, Mapping)]
    return [(name, value) for name, value in given if name not in names]


def table() -> str:
    """docs/resume-rules.md."""
    known = {key.dotted: key for family in FAMILIES.values() for key in keys(family)}
    lines = [
        "# What may change when a run goes on",
        "",
        "`--resume_from_checkpoint` compares the recipe with the one in the checkpoint's run. (This page is made by",
        "`python -m tinyworld.config.resume`.)",
        "",
        *(f"- **{kind}**: {meaning}." for kind, meaning in MEANING.items()),
        "",
        "Forbidden keys are judged by their effect, not by their text: a batch of 4 x 2 instead of 2 x 4, a moved data folder",
        "with the same videos, or another plan for a stage that has not begun go on, and are logged as a warning.",
        "`max_train_steps` is free while `lr_scheduler` is constant. Another number of processes is a warning: the same",
        "samples in the same steps, summed in another order.",
        "",
        "| key | at resume | what it is about |",
        "|---|---|---|",
    ]
    for key in known.values():
        kind, about = _BY_LEAF[key.leaf]
        lines.append(f"| `{key.dotted}` | {kind} | {about} |")
    lines.append(f"| {PROCESSES} (no key) | warned | the order of sums |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(table(), end="")
