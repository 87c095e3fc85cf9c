"""A strategy that would not be in force is refused, with what to do."""

import importlib.util
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch import nn

from tests.engine.parallel.net import CPU, Net, recipe
from tinyworld.core.errors import ConfigError, MissingExtraError
from tinyworld.engine.parallel import accelerator_options, build, deepspeed_setup
from tinyworld.engine.parallel.fsdp2 import FullySharded, units


def test_ddp_has_nothing_to_offload() -> None:
    with pytest.raises(ConfigError, match="cpu_offload has no meaning"):
        build(recipe("ddp", offload=True), Net(), CPU)


def test_weights_must_be_fp32() -> None:
    with pytest.raises(ValueError, match="must be fp32"):
        build(recipe(), Net().to(torch.bfloat16), CPU)


@pytest.mark.parametrize("strategy", ["zero2", "zero3"])
def test_missing_deepspeed_names_the_extra(strategy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == "deepspeed" else found(name, *rest)
    )
    with pytest.raises(MissingExtraError, match=rf"{strategy}, but .* pip install 'tinyworld\[deepspeed\]'"):
        accelerator_options(recipe(strategy))
    assert accelerator_options(recipe("fsdp2")) == {}


def test_zero2_refuses_an_accelerator_that_would_ignore_it() -> None:
    net = Net()
    try:
        Accelerator(cpu=True)
        with pytest.raises(ConfigError, match="first Accelerator in this process lacked"):
            deepspeed_setup.prepared(recipe("zero2"), net, torch.optim.AdamW(net.parameters()), CPU)
    finally:
        AcceleratorState._reset_state(reset_partial_state=True)


def test_fsdp2_names_what_it_cannot_share_out() -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.tensor(1.0))

    with pytest.raises(ConfigError, match="scale of the model"):
        FullySharded(recipe("fsdp2"), Scaled(), CPU)


def test_fsdp2_refuses_blocks_that_are_not_there() -> None:
    net: Any = Net()
    net.sharded_blocks = ("blocks.0", "blocks.7")
    with pytest.raises(ValueError, match=r"blocks\.7"):
        units(net)
