"""How good a reconstruction is: PSNR, also by position in the time group, SSIM, flicker; the mean-colour baseline."""

from tinyworld.metrics.baseline import mean_colour
from tinyworld.metrics.image import PSNR_CAP, flicker, psnr, psnr_by_position, ssim

__all__ = ["PSNR_CAP", "flicker", "mean_colour", "psnr", "psnr_by_position", "ssim"]
