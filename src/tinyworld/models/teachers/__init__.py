"""Frozen reference video VAEs behind one interface: what a student learns its latents from.

`read_facts` says what a teacher is from its config alone, `open_teacher` loads it. `ReferenceVae` is what one of your own
fulfils (examples/custom_teacher.py).
"""

from tinyworld.models.teachers.facts import SUPPORTED, TeacherFacts, read_facts
from tinyworld.models.teachers.interface import ReferenceVae
from tinyworld.models.teachers.latents import Convention, Posterior
from tinyworld.models.teachers.teacher import Teacher, open_teacher, teacher_digest

__all__ = [
    "SUPPORTED",
    "Convention",
    "Posterior",
    "ReferenceVae",
    "Teacher",
    "TeacherFacts",
    "open_teacher",
    "read_facts",
    "teacher_digest",
]
