"""The sections of a FantasyWorld recipe: every key with its unit, range, default and meaning.

Names that the guide uses are kept where they are a recipe's own; `config.guide` understands its others.
"""

from typing import Annotated, Literal

from pydantic import Field

from tinyworld.config.sections import Count, Section, Share, Text, ValidationConfig, Weight, Whole

Sigma = Annotated[float, Field(gt=0, le=1)]


class FantasyDataConfig(Section):
    """which clips with depth and cameras, and how a training clip is cut out of them"""

    dataset_base_path: Text = Field(
        description="Folder of samples (video, depth, cameras); rooms names the embedded data set (./rooms a folder of that "
        "name).",
        json_schema_extra={"path": "data set folder", "metavar": "DIR", "rooms": True},
    )
    dataset_metadata_path: Text | None = Field(
        default=None,
        description="metadata.json of the samples. Unset: the one in dataset_base_path, else every sample folder below it.",
        json_schema_extra={"path": "metadata file", "metavar": "FILE"},
    )
    height: Count = Field(description="Height of a clip in pixels, a multiple of 16.")
    width: Count = Field(description="Width of a clip in pixels, a multiple of 16.")
    num_frames: Count = Field(
        le=100_000, description="Frames of a clip, 4k + 1: the first frame has a latent of its own."
    )
    frame_steps: Annotated[tuple[Count, ...], Field(strict=False, min_length=1)] = Field(
        default=(1,), description="Steps between the frames of a clip, in frames of the video; one is drawn per clip."
    )
    camera_convention: Literal["w2c", "c2w"] | None = Field(
        default=None,
        description="What the camera files hold: world-to-camera or camera-to-world matrices. Unset: what their format says; "
        "files of 12 or 16 numbers say nothing and need it.",
    )
    camera_intrinsics: Annotated[tuple[float, float, float, float], Field(strict=False)] | None = Field(
        default=None,
        description="fx, fy, cx, cy in pixels of the videos, for camera files that hold poses alone.",
        json_schema_extra={"metavar": "FX,FY,CX,CY", "expects": "four numbers: fx, fy, cx, cy"},
    )
    max_depth: float = Field(
        default=80.0, gt=0, description="Depth in the data's units (metres) beyond which nothing counts."
    )
    held_out_fraction: float = Field(
        default=0.1, gt=0, lt=1, description="Share of the scenes kept for validation, at least one, never trained on."
    )
    quarantine_budget: float = Field(
        default=0.05, ge=0, le=1, description="Share of the samples that may be unusable before the run stops."
    )
    num_workers: Whole = Field(
        default=2,
        ge=0,
        description="Processes that read samples, per training process; 0 reads in the training process.",
    )
    frame_cache_mb: Whole = Field(
        default=0,
        ge=0,
        description="Memory for decoded samples in each reading process, in MiB: small data sets are decoded once. 0 is off.",
    )
    prefetch_factor: Count = Field(default=2, description="Batches that each reading process prepares ahead.")
    condition_cache: Text | None = Field(
        default=None,
        description="Folder of text, image and video latents, filled by `tinyworld data cache`: no encoder runs while "
        "training. Unset: the codec encodes every clip anew, and there is no text.",
        json_schema_extra={"metavar": "DIR", "made": True},
    )
    cached_crops: Count = Field(
        default=4, description="With condition_cache: different cuts of each sample, used in turn from epoch to epoch."
    )


class FantasyModelConfig(Section):
    """the frozen video transformer, the geometry branch beside it, and where their weights come from"""

    size: Literal["wan_fun_1_3b", "demo"] = Field(
        default="wan_fun_1_3b",
        description="Sizes of transformer and branch: Wan2.1-Fun 1.3B, or one for two CPU cores.",
    )
    backbone_path: Text | None = Field(
        default=None,
        description="Weights of the video transformer: Wan2.1-Fun-V1.1-1.3B-Control-Camera (its own files or a diffusers "
        "folder), or the best_model of a video_base run.",
        json_schema_extra={"path": "weights of the video transformer", "metavar": "DIR|FILE"},
    )
    backbone_dtype: Literal["bf16", "fp32"] = Field(
        default="bf16", description="Number type in which the frozen transformer is kept."
    )
    pretrained_model_path: Text | None = Field(
        default=None,
        description="Weights of what is trained to start from, such as step-N.safetensors of a run of the same task. Unset: "
        "stage1_checkpoint, or a random start.",
        json_schema_extra={"path": "weights to start from", "metavar": "FILE"},
    )
    stage1_checkpoint: Text | None = Field(
        default=None,
        description="Stage 2: the trained branch of stage 1 to start from, such as step-20000.safetensors.",
        json_schema_extra={"path": "stage 1's checkpoint", "metavar": "FILE"},
    )
    codec_path: Text | None = Field(
        default=None,
        description="What makes latents of frames: the Wan VAE in diffusers' format, or a TAEHV. Not needed with "
        "condition_cache, except for previews.",
        json_schema_extra={"path": "codec folder", "metavar": "DIR"},
    )
    encoders_path: Text | None = Field(
        default=None,
        description="Folder in diffusers' layout with text_encoder, tokenizer and image_encoder, for `tinyworld data cache`.",
        json_schema_extra={"path": "folder of encoders", "metavar": "DIR"},
    )


class FantasyLossConfig(Section):
    """flow matching and geometry: what is made smaller, and what the model is left to do without"""

    diffusion_loss_weight: Weight = Field(
        default=1.0, description="Flow matching. In stage 1 a monitor: nothing trained reaches it."
    )
    geometry_loss_weight: Weight = Field(
        default=1.0, description="Depth, points and cameras together, beside flow matching (the paper's lambda)."
    )
    depth_loss_weight: Weight = Field(default=1.0, description="Depth: confidence regression and gradients.")
    depth_temporal_weight: Weight = Field(default=1.0, description="Within depth: changes from frame to frame.")
    point_loss_weight: Weight = Field(default=1.0, description="Points: confidence regression and gradients.")
    camera_loss_weight: Weight = Field(
        default=3.0, description="Cameras: Huber loss of every refinement, later ones more."
    )
    confidence_alpha: float = Field(
        default=0.2,
        ge=0,
        description="Reward of confidence: the loss holds -alpha log(confidence) and can go below zero.",
    )
    flow_shift: float = Field(
        default=5.0, gt=0, description="Shift of the noise levels: above 1 draws more of the noisy ones."
    )
    timestep_sampling: Literal["uniform", "logit_normal"] = Field(
        default="uniform", description="How the place among the 1,000 shifted noise levels is drawn."
    )
    text_dropout: Share = Field(default=0.1, description="Share of samples trained without their prompt.")
    image_dropout: Share = Field(default=0.1, description="Share of samples trained without their first frame.")
    camera_dropout: Share = Field(
        default=0.5,
        description="Share of samples whose cameras are given to nothing: the geometry branch has to estimate them, and the "
        "video is made without.",
    )
    interaction_dropout: Share = Field(
        default=0.1, description="Share of samples trained without the two-way cross-attention (stage 2)."
    )
    diffusion_log_steps: Count = Field(
        default=50,
        description="Stage 1: optimizer steps between two looks at the diffusion loss, which costs a whole pass.",
    )


class FantasyValidationConfig(ValidationConfig):
    """what is measured on the held-out scenes, how often, and what follows from it"""

    metric_for_best_model: Literal["abs_rel", "delta1", "auc30", "ate", "point_error", "diffusion"] = Field(
        default="abs_rel",
        description="Metric that picks the best model and stops early (delta1, auc30: higher is better).",
    )
    validation_sigmas: Annotated[tuple[Sigma, ...], Field(strict=False, min_length=1)] = Field(
        default=(0.1, 0.5, 0.9), description="Noise levels at which geometry is measured; the first one counts."
    )
