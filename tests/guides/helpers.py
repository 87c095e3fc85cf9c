"""What the tests of the guides' errors share: small runs, a small corrector, DeepSpeed's rule under every strategy."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tests.cli.helpers import SMALL
from tinyworld.config.load import load_recipe
from tinyworld.config.schema import Recipe, TaehvRecipe
from tinyworld.engine import parallel
from tinyworld.losses.seraena import Seraena, SeraenaSettings


def events(run: Path, kind: str) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (run / "journal.jsonl").read_text().splitlines()]
    return [line for line in lines if line["event"] == kind]


def small_recipe(clips: Path, output: Path, **changes: Any) -> TaehvRecipe:
    """One step on 8 frames of 32 x 32, with Seraena when asked for."""
    flags = {flag[2:].partition("=")[0]: flag.partition("=")[2] for flag in SMALL}
    seraena = {"seraena_start_step": 0, "seraena_width": 4, "seraena_buffer_mb": 1}
    own = {"data_root": str(clips), "output_dir": str(output), "max_train_steps": 1, "lr_warmup_steps": 0}
    return load_recipe("taehv_demo", {**flags, **own, **seraena, **changes})


def small_seraena(group: int, latent_channels: int = 16) -> Seraena:
    """A corrector with few channels."""
    settings = SeraenaSettings(
        group=group,
        latent_channels=latent_channels,
        widths=(4, 8, 8, 8, 8, 8),
        learning_rate=3e-4,
        buffer_bytes=2**20,
        buffer_device="cpu",
        seed=0,
    )
    return Seraena(settings, 0, 1)


def prepared_as_zero_stage_2_demands(monkeypatch: pytest.MonkeyPatch) -> list[nn.Module]:
    """DeepSpeed's rule under every strategy: a module is only prepared together with an optimizer of its parameters."""
    build, prepared = parallel.build, []

    def strict(recipe: Recipe, module: nn.Module, device: torch.device) -> parallel.Strategy:
        assert all(p.requires_grad for p in module.parameters()), "zero stage 2 requires an optimizer"
        prepared.append(module)
        return build(recipe, module, device)

    monkeypatch.setattr(parallel, "build", strict)
    return prepared
