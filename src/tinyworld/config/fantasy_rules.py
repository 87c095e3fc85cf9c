"""Rules and warnings that join several keys of a FantasyWorld recipe. No torch."""

from tinyworld.config.schema import EMBEDDED_ROOMS, FantasyRecipe
from tinyworld.core.frames import nearest_counts
from tinyworld.core.world_sizes import PATCH, SPACE_STEP, TIME_STEP

TOKEN = PATCH[1] * SPACE_STEP
"""Pixels along each side of one token."""


def problems(recipe: FantasyRecipe) -> list[str]:
    """What keeps the recipe from running, beside the rules that all families share."""
    return [*_sizes(recipe), *_sources(recipe), *_parts(recipe), *_learned(recipe)]


def _sizes(recipe: FantasyRecipe) -> list[str]:
    data = recipe.data
    found = []
    for name in ("height", "width"):
        size = getattr(data, name)
        if size % TOKEN:
            nearest = " or ".join(map(str, nearest_counts(size, TOKEN, 0)))
            found.append(
                f"{name}={size} is not a multiple of {TOKEN}: a token covers {TOKEN} pixels. Use {nearest} (key: data.{name})."
            )
    if data.num_frames % TIME_STEP != 1:
        nearest = " or ".join(map(str, nearest_counts(data.num_frames, TIME_STEP, 1)))
        found.append(
            f"num_frames={data.num_frames} is not 4k + 1: the first frame has a latent of its own, then every four share one. "
            f"Use {nearest} (key: data.num_frames)."
        )
    return found


def _sources(recipe: FantasyRecipe) -> list[str]:
    data = recipe.data
    found = []
    if data.dataset_base_path == EMBEDDED_ROOMS and data.dataset_metadata_path is not None:
        found.append(
            "dataset_base_path=rooms is the embedded data set, which takes no dataset_metadata_path. Leave "
            "data.dataset_metadata_path out, or give the folder of your samples as data.dataset_base_path."
        )
    if data.condition_cache is None and recipe.model.codec_path is None:
        found.append(
            "nothing makes latents of the frames: give model.codec_path (the Wan VAE's folder, or a trained TAEHV such as "
            "output/<run>/best_model), or data.condition_cache with latents that `tinyworld data cache` has made."
        )
    if data.condition_cache is None and recipe.spec().backbone.image_dim is not None:
        found.append(
            f"size={recipe.model.size} takes umT5 text and CLIP image tokens, which are computed beforehand: give "
            "data.condition_cache, a folder that `tinyworld data cache` fills from model.encoders_path."
        )
    return found


def _parts(recipe: FantasyRecipe) -> list[str]:
    model, stage = recipe.model, recipe.stage
    found = []
    if stage == "base" and recipe.spec().backbone.image_dim is not None:
        found.append(
            f"task=video_base trains the small transformer from scratch, and size={model.size} is the published one. Use "
            "model.size=demo, or fantasy_world:stage1 with model.backbone_path."
        )
    if stage != "base" and model.backbone_path is None:
        found.append(
            "backbone_path is not set: the branch is trained beside a frozen video transformer. Give "
            "Wan2.1-Fun-V1.1-1.3B-Control-Camera, or the best_model of a video_base run (key: model.backbone_path)."
        )
    if model.pretrained_model_path is not None and model.stage1_checkpoint is not None:
        found.append(
            "pretrained_model_path and stage1_checkpoint both say where the weights come from. Give one of them (keys: "
            "model.pretrained_model_path, model.stage1_checkpoint)."
        )
    if stage == "stage2" and model.stage1_checkpoint is None and model.pretrained_model_path is None:
        found.append(
            "stage1_checkpoint is not set: stage 2 starts from what stage 1 has trained, such as "
            "output/<run>/step-20000.safetensors (key: model.stage1_checkpoint)."
        )
    if stage != "stage2" and model.stage1_checkpoint is not None:
        found.append(
            f"stage1_checkpoint is given, but task={recipe.task} does not start from one. Leave model.stage1_checkpoint out, "
            "or train fantasy_world:stage2."
        )
    return found


def _learned(recipe: FantasyRecipe) -> list[str]:
    """Something is learned, and something measured that tells by it."""
    loss, metric, found = recipe.loss, recipe.validation.metric_for_best_model, []
    geometry = max(loss.depth_loss_weight, loss.point_loss_weight, loss.camera_loss_weight) * loss.geometry_loss_weight
    if recipe.stage == "base" and loss.diffusion_loss_weight == 0:
        found.append(
            "diffusion_loss_weight=0 leaves video_base nothing to learn. Use 1 (key: loss.diffusion_loss_weight)."
        )
    if recipe.stage == "stage1" and geometry == 0:
        found.append(
            "depth, point and camera weigh nothing, and stage 1 learns nothing else. Raise loss.geometry_loss_weight, or one "
            "of depth_loss_weight, point_loss_weight and camera_loss_weight."
        )
    if recipe.stage == "stage2" and geometry == 0 and loss.diffusion_loss_weight == 0:
        found.append(
            "all loss weights are 0: nothing is learned (keys: loss.diffusion_loss_weight, loss.geometry_loss_weight)."
        )
    if recipe.stage == "base" and metric != "diffusion":
        found.append(
            f"metric_for_best_model={metric} is about geometry, which video_base has none of. Use diffusion (key: "
            "validation.metric_for_best_model)."
        )
    if recipe.stage == "stage1" and metric == "diffusion":
        found.append(
            "metric_for_best_model=diffusion never changes in stage 1: nothing that is trained reaches the video. Use abs_rel "
            "(key: validation.metric_for_best_model)."
        )
    return found


def warnings(recipe: FantasyRecipe) -> list[str]:
    """What can run but is rarely meant. Expects a recipe without problems."""
    loss, data, found = recipe.loss, recipe.data, []
    if recipe.stage != "base" and loss.camera_dropout == 0:
        found.append(
            "camera_dropout=0: the geometry branch is always given the true cameras, so its camera head copies them instead of "
            "estimating them. Usual: 0.5 (key: loss.camera_dropout)."
        )
    if recipe.stage == "stage1" and recipe.optimizer.learning_rate <= 1e-5 and recipe.training.max_train_steps < 20_000:
        found.append(
            f"learning_rate={recipe.optimizer.learning_rate:g} is the guide's for 20,000 steps from weights that fit; the branch "
            f"starts at random, and {recipe.training.max_train_steps} steps of it teach little. Usual for so few: 1e-4."
        )
    if data.condition_cache is None:
        found.append("no condition_cache: trained without text, and the codec encodes every clip anew.")
    return found
