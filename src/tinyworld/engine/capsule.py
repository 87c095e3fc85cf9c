"""Capsules: all that is needed to take a skipped step once more and look into it, on one process.

capsules/step-N/
  capsule.json           the step, why it was skipped, how many ranks there were, what each of them saw and measured
  config.yaml            the run's settings
  model.safetensors      the weights that the step was taken with
  state/NAME.pt          the auxiliaries then; state/rng-rank0.pt …: the random state of each rank at the step's start
  manifest.json          sizes and SHA-256 of all of these
"""

import json
from pathlib import Path
from typing import Any

import torch

from tinyworld.config.dump import to_yaml
from tinyworld.config.schema import Recipe
from tinyworld.core import dist, files
from tinyworld.core.console import LOGGER
from tinyworld.core.errors import CheckpointError, MissingFileError
from tinyworld.engine.auxiliaries import Auxiliaries
from tinyworld.engine.parallel import Strategy
from tinyworld.engine.run import CAPSULES
from tinyworld.engine.state import TrainingState
from tinyworld.engine.step import Taken
from tinyworld.engine.task import Task

MOST = 3
"""Capsules of a run; each holds the weights."""


def write(
    run: Path,
    task: Task,
    recipe: Recipe,
    strategy: Strategy,
    auxiliaries: Auxiliaries,
    taken: Taken,
    state: TrainingState,
) -> Path | None:
    """Keep a step that all ranks skip; nothing when the run has enough of them. Every rank must call it, before the next
    update. Raises OSError on all ranks when it cannot be written."""
    if state.capsules >= MOST:
        return None
    state.capsules += 1
    seen = {
        "ids": taken.ids,
        "draws": [draw for batch in taken.micro_batches for draw in batch.draws],
        "means": taken.means,
    }
    parts = dist.gather((seen, taken.generators))
    snapshot = strategy.snapshot()
    folder = run / CAPSULES / f"step-{state.step + 1}"
    about = {
        "step": state.step,
        "left_out": state.left_out,
        "pieces": state.pieces,
        "reason": taken.skipped,
        "gradient_norm": taken.norm,
        "task": task.name,
        "ranks": [part for part, _ in parts],
    }

    def put() -> None:
        assert snapshot is not None
        with files.staged_folder(folder) as staging:
            files.write_json(staging / "capsule.json", about)
            files.write_atomic(staging / "config.yaml", to_yaml(recipe.anchored()))
            task.write_weights(snapshot.weights, staging / "model.safetensors")
            (staging / "state").mkdir()
            for name, value in auxiliaries.states().items():
                torch.save(value, staging / "state" / f"{name}.pt")
            for rank, (_, generators) in enumerate(parts):
                torch.save(generators, staging / "state" / f"rng-rank{rank}.pt")

    dist.on_main(put)
    LOGGER.warning("the step is kept for a closer look: tinyworld replay %s", folder)
    return folder


def read(folder: Path) -> dict[str, Any]:
    """capsule.json of a complete capsule. Raises MissingFileError or CheckpointError."""
    if not (folder / "capsule.json").is_file():
        raise MissingFileError(
            f"{folder} is not a capsule: it has no capsule.json. Capsules lie in a run's {CAPSULES}/."
        )
    problems = files.verify_folder(folder)
    if problems:
        raise CheckpointError(f"{folder} is damaged: {'; '.join(problems[:3])}.")
    return dict(json.loads((folder / "capsule.json").read_text(encoding="utf-8")))
