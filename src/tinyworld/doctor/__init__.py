"""What went wrong, from the words of a log: causes as data, and a search that knows no model and needs no torch."""

from tinyworld.doctor.diagnose import Finding, diagnose
from tinyworld.doctor.run_folder import examine

__all__ = ["Finding", "diagnose", "examine"]
