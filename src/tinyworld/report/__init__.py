"""Run folders as one self-contained page: one run, or several compared. The pages read what runs wrote; they measure nothing."""

from tinyworld.report.compare_page import build_comparison
from tinyworld.report.page import build_report

__all__ = ["build_comparison", "build_report"]
