"""How the processes of a run hold the trained module and learn as one: ddp, zero2, zero3 or fsdp2.

`strategy` is what the trainer asks of each, `build` the way from a recipe to one of them.
"""

from tinyworld.engine.parallel.build import build
from tinyworld.engine.parallel.deepspeed_setup import accelerator_options
from tinyworld.engine.parallel.strategy import Snapshot, Strategy

__all__ = ["Snapshot", "Strategy", "accelerator_options", "build"]
