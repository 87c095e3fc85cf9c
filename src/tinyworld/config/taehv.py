"""The sections of a TAEHV recipe: every key with its unit, range, default and meaning."""

from dataclasses import replace
from typing import Annotated, Literal

from pydantic import Field

from tinyworld.config.sections import Count, Section, Share, Switch, Text, ValidationConfig, Weight, Whole
from tinyworld.core.variants import TaehvSpec, variant

Width = Annotated[Count, Field(le=4096)]
Bucket = Annotated[tuple[Count, Count, Count], Field(strict=False)]
Buckets = Annotated[tuple[Bucket, ...], Field(strict=False)]


class StageConfig(Section):
    """clip sizes and batch from a step on"""

    from_step: Count
    height: Count
    width: Count
    n_frames: Annotated[Count, Field(le=100_000)]
    buckets: Buckets = ()
    train_batch_size: Count | None = None


class TaehvDataConfig(Section):
    """which videos, and how a training clip is cut out of them"""

    data_root: Text = Field(
        description="Folder of training videos; rooms names the embedded data set (./rooms a folder of that name).",
        json_schema_extra={"path": "data folder", "metavar": "DIR", "rooms": True},
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
    buckets: Buckets = Field(
        default=(),
        description="Clip sizes [height, width, n_frames] that batches are drawn from. Empty: height x width x n_frames.",
    )
    stages: Annotated[tuple[StageConfig, ...], Field(strict=False)] = Field(
        default=(),
        description="Later clip sizes: from optimizer step from_step on, a stage replaces height, width, n_frames (or "
        "buckets) and, when it says so, train_batch_size.",
        json_schema_extra={
            "metavar": "[{…}]",
            "expects": "a list of stages, each {from_step: N, height: N, width: N, n_frames: N} and, if wanted, "
            "buckets and train_batch_size",
        },
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
    colour_jitter: Share = Field(
        default=0.0,
        description="Largest relative change of a training clip's brightness, contrast and saturation (and a tenth of it "
        "in hue), one draw for all its frames; 0 is off.",
    )
    clip_ends: Share = Field(
        default=0.0,
        description="Share of the training clips that end where their last decoded frame is, that frame repeated after "
        "it, as at the end of a video.",
    )
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
    latent_cache: Text | None = Field(
        default=None,
        description="Folder of the reference VAE's latents, filled by `tinyworld data cache`: it need not run while "
        "training. Unset: it encodes every clip anew.",
        json_schema_extra={"metavar": "DIR", "made": True},
    )
    cached_crops: Count = Field(
        default=4, description="With latent_cache: different cuts of each video, used in turn from epoch to epoch."
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
    train_part: Literal["both", "encoder", "decoder"] = Field(
        default="both", description="What is trained; the other part keeps the weights it starts from."
    )
    encoder_width: Width | None = Field(default=None, description="Channels of the encoder. Unset: the variant's.")
    decoder_widths: Annotated[tuple[Width, Width, Width, Width], Field(strict=False)] | None = Field(
        default=None,
        description="Channels of the decoder's four stages, first the smallest picture. Unset: the variant's.",
    )
    latent_channels: Width | None = Field(
        default=None, description="Channels of a latent, for latents that no variant has. Unset: the variant's."
    )
    time_compression: Literal[2, 4, 8] | None = Field(
        default=None, description="Frames per latent, for latents that no variant has. Unset: the variant's."
    )
    patch_size: Annotated[Count, Field(le=8)] | None = Field(
        default=None,
        description="Pixels along each side that are folded into channels; a latent cell covers 8 times as many. Unset: the "
        "variant's.",
    )

    def spec(self, distils: bool) -> TaehvSpec:
        """The architecture that the section describes. Raises ConfigError for an unknown variant.

        `distils`: the latents are a reference VAE's. An autoencoder that learns its own latents follows the plain
        temporal law also where the variant is CogVideoX's: that law aligns even and odd latent counts differently, and
        one causal encoder can learn only one of the two.
        """
        spec = variant(self.variant)
        if self.time_compression is not None:
            again, once_more = self.time_compression >= 4, self.time_compression >= 8
            spec = replace(
                spec,
                encoder_time_downscale=(True, again, once_more),
                decoder_time_upscale=(once_more, again, True),
            )
        return replace(
            spec,
            latent_channels=self.latent_channels or spec.latent_channels,
            patch_size=self.patch_size or spec.patch_size,
            flavour="plain" if spec.flavour == "cogvideox" and not distils else spec.flavour,
            encoder_width=self.encoder_width or spec.encoder_width,
            decoder_widths=self.decoder_widths or spec.decoder_widths,
        )


class TeacherConfig(Section):
    """the frozen reference VAE whose latents are learned (mode distil), or none (autoencode)"""

    use_ref_vae: Switch = Field(
        default=False,
        description="true: distil, the model learns the latents of the reference VAE. false: autoencode, it makes its "
        "own latents, which no diffusion model speaks.",
    )
    ref_vae_path: Text | None = Field(
        default=None,
        description="Reference VAE in diffusers' format: a VAE folder, a pipeline folder with vae/ in it, or a hub id "
        "such as THUDM/CogVideoX-2b.",
        json_schema_extra={"path": "reference VAE", "hub": True, "metavar": "DIR|ID"},
    )
    ref_vae_dtype: Literal["bf16", "fp16", "fp32"] = Field(
        default="bf16", description="Number type that the reference VAE runs in."
    )
    ref_vae_tiling: Switch = Field(
        default=False, description="The reference VAE works tile by tile: less memory for large clips, faint seams."
    )
    ref_vae_slicing: Switch = Field(
        default=False, description="The reference VAE works clip by clip: less memory, same result."
    )
    latent_convention: Literal["auto", "raw", "scaled", "normalised"] = Field(
        default="auto",
        description="How the reference VAE's latents are scaled for the model. auto: as the published tiny decoders of "
        "that family expect them.",
    )


class TaehvLossConfig(Section):
    """what the steps make smaller: the weighted sum of these terms"""

    reconstruction_loss_weight: float = Field(
        default=10.0, gt=0, description="Weight of the difference between decoded and true pixels (pixels in [0, 1])."
    )
    encoder_loss_weight: Weight = Field(
        default=0.1,
        description="Distil: weight of the squared difference between the model's latents and the reference VAE's.",
    )
    decoder_loss_weight: Weight = Field(
        default=0.0,
        description="Distil: weight of the difference between decoded and true frames as the reference VAE's encoder "
        "sees them (its features). It has to run for it, forward and backward, in every step.",
    )
    perceptual_loss_weight: Weight = Field(
        default=0.0, description="Weight of the perceptual difference between decoded and true frames; 0 is off."
    )
    perceptual_kind: Literal["gms", "lpips"] = Field(
        default="gms",
        description="gms compares edges and texture (gradient magnitudes) and needs no weights; lpips compares VGG16's "
        "features and needs validation.lpips_backbone.",
    )
    reconstruction_kind: Literal["mse", "l1", "charbonnier"] = Field(
        default="mse", description="How a pixel difference counts: squared, absolute, or smoothly absolute."
    )
    flicker_loss_weight: float = Field(
        default=5.0, ge=0, description="Weight of the difference between decoded and true change from frame to frame."
    )
    latent_loss_weight: Weight = Field(
        default=0.01,
        description="Autoencode: weight of the pull of the latents towards mean 0 and standard deviation 1.",
    )


class SeraenaConfig(Section):
    """the adversarial corrector, which sharpens what the pixel loss leaves blurred"""

    use_seraena: Switch = Field(default=False, description="Train the decoder against Seraena's discriminator as well.")
    n_seraena_frames: Count = Field(
        default=3,
        description="Consecutive frames that the discriminator judges together. With 1 it cannot see flicker.",
    )
    seraena_loss_weight: Weight = Field(
        default=1.0,
        description="Size of the adversarial gradient at the decoded frames, as a multiple of the reconstruction's.",
    )
    seraena_start_step: Whole = Field(default=0, ge=0, description="Optimizer steps before the discriminator starts.")
    seraena_ramp_steps: Whole = Field(
        default=1000, ge=0, description="Optimizer steps over which its weight then rises from 0."
    )
    seraena_learning_rate: float = Field(
        default=3e-4, gt=0, le=1, description="Learning rate of the discriminator's AdamW."
    )
    seraena_width: Annotated[Count, Field(le=512)] = Field(
        default=64, description="Channels of the discriminator's first block; the others have 2, 4 and 8 times as many."
    )
    seraena_buffer_mb: Count = Field(
        default=256,
        description="Memory of each process for decoded frames of earlier steps that it is shown again, in MiB; every "
        "checkpoint holds them too.",
    )
    seraena_buffer_device: Literal["cpu", "training"] = Field(
        default="cpu", description="Where these frames are kept: main memory, or beside the model."
    )


class TaehvValidationConfig(ValidationConfig):
    """what is measured on the held-out videos, how often, and what follows from it"""

    metric_for_best_model: Literal["psnr", "ssim", "lpips", "flicker"] = Field(
        default="psnr", description="Metric that picks the best model and stops early (psnr, ssim: higher is better)."
    )
    validation_height: Annotated[Count, Field(ge=16)] | None = Field(
        default=None, description="Height of each measured clip in pixels. Unset: the data section's height."
    )
    validation_width: Annotated[Count, Field(ge=16)] | None = Field(
        default=None, description="Width of each measured clip in pixels. Unset: the data section's width."
    )
    validation_frames: Count | None = Field(default=None, description="Frames of each measured clip. Unset: n_frames.")
    lpips_backbone: Text | None = Field(
        default=None,
        description="VGG16 weights in torchvision's format for LPIPS, as a file or a hub id such as timm/vgg16.tv_in1k. "
        "Unset: LPIPS is not measured.",
        json_schema_extra={"path": "weights file", "hub": True, "metavar": "FILE|ID"},
    )
