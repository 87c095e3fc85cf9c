"""What a run of the fake task left behind, read back."""

import json
from pathlib import Path

import torch
from safetensors.torch import load_file


def events(run: Path, kind: str) -> list[dict]:
    lines = [json.loads(line) for line in (run / "journal.jsonl").read_text().splitlines()]
    return [line for line in lines if line["event"] == kind]


def state_of(folder: Path) -> dict[str, torch.Tensor]:
    """Everything that a checkpoint holds, as tensors by name."""
    found = {}
    for name in ("model", "ema"):
        found |= {f"{name}.{k}": v for k, v in load_file(folder / f"{name}.safetensors").items()}
    optimizer = torch.load(folder / "state" / "optimizer.pt", weights_only=True)
    for kind, moments in optimizer["moments"].items():
        found |= {f"adam.{kind}.{k}": v for k, v in moments.items()}
    found["updates"] = torch.tensor(optimizer["updates"])
    for name in ("helper", "helper-rank0"):
        state = torch.load(folder / "state" / f"{name}.pt", weights_only=True)
        found |= {f"{name}.{k}": torch.as_tensor(v) for k, v in state.items()}
    found["rng"] = torch.load(folder / "state" / "rng-rank0.pt", weights_only=True)["torch"]
    return found


def assert_same(first: Path, second: Path) -> None:
    one, other = state_of(first), state_of(second)
    assert one.keys() == other.keys()
    different = [name for name in one if not torch.equal(one[name], other[name])]
    assert not different
