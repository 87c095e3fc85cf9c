"""What the validations of each family of models measure, in the words of the report."""

from dataclasses import dataclass

from tinyworld.core.journal_lines import number
from tinyworld.report.read import Run


@dataclass(frozen=True)
class Metric:
    """A number of a validation. digits: behind the point. baseline: what stands beside it, empty where nothing does."""

    key: str
    label: str
    caption: str
    digits: int = 3
    unit: str = ""
    higher: bool = False
    baseline: str = ""


MEAN_COLOUR, MEDIAN, STILL = "mean colour", "median depth", "still camera"
AUTOENCODER = (
    Metric("psnr", "PSNR", "dB, mean over held-out clips, higher is better", 2, " dB", True, MEAN_COLOUR),
    Metric("ssim", "SSIM", "mean over held-out clips, 1 is perfect", 3, "", True, MEAN_COLOUR),
    Metric("flicker", "Flicker", "change from frame to frame that the original does not have, lower is better", 4),
    Metric("sharpness", "Sharpness", "finest detail against the original's, 1 is as sharp, below is blurred", 3),
    Metric("gmsd", "GMSD", "deviation of gradient magnitude similarity, lower is better"),
    Metric("lpips", "LPIPS", "perceptual distance, lower is better"),
    Metric("round_trip_psnr", "PSNR of the round trip", "dB, through the model's own latents", 2, " dB", True),
    Metric("latent_error", "Latent error", "RMS difference to the reference VAE's latents, in units of their spread"),
)
WORLD = (
    Metric("abs_rel", "Depth, AbsRel", "relative error of depth, lower is better", 3, "", False, MEDIAN),
    Metric("delta1", "Depth, δ1", "share of pixels within a factor of 1.25, higher is better", 3, "", True, MEDIAN),
    Metric("point_error", "Points", "distance from the true point, relative, lower is better", 3, "", False, MEDIAN),
    Metric("auc30", "Camera, AUC@30", "cameras estimated, not given, higher is better", 3, "", True, STILL),
    Metric(
        "ate",
        "Camera, ATE",
        "track after the best similarity, in units of the clip, lower is better",
        4,
        "",
        False,
        STILL,
    ),
    Metric("given_auc30", "AUC@30, cameras given", "how well given cameras are passed on", 3, "", True),
    Metric("consistency", "Points against depth", "relative distance, lower is better", 3),
    Metric(
        "diffusion", "Denoising error", "squared error of the velocity, lower is better", 3, "", False, "no prediction"
    ),
)
TRAINING_MEAN = {
    "abs_rel": ("mean_map_abs_rel", "mean training depth map"),
    "delta1": ("mean_map_delta1", "mean training depth map"),
    "auc30": ("mean_track_auc30", "mean training track"),
    "ate": ("mean_track_ate", "mean training track"),
}
"""A second baseline, by metric: its key among the baselines and its name. What the training clips are in the mean."""
COLUMNS = {
    "taehv": ("original", "reconstruction", "difference ×4"),
    "video_base": ("original", "denoised in one step"),
    "fantasy_world": ("original", "denoised in one step", "true depth", "estimated depth"),
}
"""What the preview videos of a family show, left to right."""
NO_METRICS = ("step", "time", "seconds")
"""Numbers of a validation that are not about the model."""


def family(run: Run) -> str:
    """taehv, video_base or fantasy_world."""
    return str(run.config.get("task", "taehv")).split(":")[0]


def metrics_of(run: Run) -> tuple[Metric, ...]:
    """The family's metrics, the most telling first; of a task that is not of this package, each number that it measures."""
    if family(run) in COLUMNS:
        return AUTOENCODER if family(run) == "taehv" else WORLD
    known = {metric.key: metric for metric in (*AUTOENCODER, *WORLD)}
    found = [
        key for entry in run.validations for key in entry if key not in NO_METRICS and number(entry[key]) is not None
    ]
    return tuple(known.get(key, Metric(key, key, "")) for key in dict.fromkeys(found))


def measured(run: Run) -> list[Metric]:
    """Those that the run's validations have."""
    return [metric for metric in metrics_of(run) if any(entry.get(metric.key) is not None for entry in run.validations)]
