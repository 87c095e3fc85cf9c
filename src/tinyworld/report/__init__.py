"""A run folder as one self-contained page. The page reads what the run wrote; it measures nothing itself."""

from tinyworld.report.page import build_report

__all__ = ["build_report"]
