"""Where the parts of a pipeline lie: all on one device, or in turn on an accelerator that is too small for all of them."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from tinyworld.infer.codec import TaehvCodec, VaeCodec
from tinyworld.models.fantasy.encoders import ImageEncoder, TextEncoder

Part = nn.Module | VaeCodec | TaehvCodec | TextEncoder | ImageEncoder


class Places:
    """device: where parts compute. in_turn: whether they wait in main memory and are there only while they are used."""

    def __init__(self, device: torch.device | str) -> None:
        self.device = torch.device(device)
        self.in_turn = False

    @contextmanager
    def using(self, *parts: Part | None) -> Iterator[None]:
        """Parts that the block uses; None stands for a part that is not there."""
        there = [part for part in parts if part is not None]
        for part in there:
            move(part, self.device)
        try:
            yield
        finally:
            if self.in_turn:
                for part in there:
                    move(part, torch.device("cpu"))


def move(part: Part, device: torch.device) -> None:
    """Bring a part to a device; nothing happens to one that is there."""
    match part:
        case TaehvCodec():
            part.model.to(device)
            part.device = device
        case VaeCodec():
            part.teacher.to(device)
        case TextEncoder() | ImageEncoder():
            part.model.to(device)
        case _:
            part.to(device)
