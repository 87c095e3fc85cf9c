"""Replay buffer: decoded groups of earlier steps, so that the discriminator does not forget them.

8-bit frames and 16-bit contexts within a byte budget: 3 frames of 64 x 64 with 16 latent channels take 38 kB.
"""

from collections.abc import Iterable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from tinyworld.core.errors import ConfigError

MEBIBYTE = 2**20


class Entry(NamedTuple):
    """images: uint8 3·group H W. context: fp16 c h w."""

    images: Tensor
    context: Tensor

    @property
    def bytes(self) -> int:
        return self.images.nbytes + self.context.nbytes


Shape = tuple[tuple[int, ...], tuple[int, ...]]
"""Of an entry: its images' and its context's."""


def shape_of(images: Tensor, contexts: Tensor) -> Shape:
    """The shape of the entries that batches N 3·group H W and N c h w hold."""
    return tuple(images.shape[1:]), tuple(contexts.shape[1:])


class ReplayBuffer:
    """Entries of any shapes, kept apart by shape, that together never take more than `budget` bytes.

    When it is full, a new entry takes the place of an old one drawn from all, or of several when they are smaller. Every
    draw is from the generator of the buffer, seeded with `seed`.
    """

    def __init__(self, budget: int, seed: int, device: torch.device) -> None:
        self.budget, self.device, self.bytes = budget, device, 0
        self._generator = torch.Generator().manual_seed(seed)
        self._entries: dict[Shape, list[Entry]] = {}

    def to(self, device: torch.device) -> None:
        """Move every entry."""
        self.device = device
        for entries in self._entries.values():
            entries[:] = [Entry(entry.images.to(device), entry.context.to(device)) for entry in entries]

    def count(self, shape: Shape) -> int:
        return len(self._entries.get(shape, ()))

    def put(self, images: Tensor, contexts: Tensor) -> None:
        """Store copies of a batch: uint8 N 3·group H W, fp16 N c h w. Raises ConfigError when one entry exceeds the budget."""
        if images.dtype != torch.uint8 or contexts.dtype != torch.float16 or len(images) != len(contexts):
            raise ValueError(
                f"the buffer takes as many uint8 images as fp16 contexts, got {images.dtype} {contexts.dtype}"
            )
        needed = Entry(images[0], contexts[0]).bytes
        if needed > self.budget:
            raise ConfigError(
                f"Seraena's replay buffer of {self.budget / MEBIBYTE:g} MiB cannot hold one group of frames of this size, "
                f"which takes {needed:,} bytes. Set seraena.seraena_buffer_mb to at least {-(-needed // MEBIBYTE)}; a "
                "useful buffer holds hundreds of groups."
            )
        shape = shape_of(images, contexts)
        for image, context in zip(images.to(self.device), contexts.to(self.device), strict=True):
            self._put(shape, Entry(image, context), needed)

    def _put(self, shape: Shape, new: Entry, needed: int) -> None:
        while self.bytes + needed > self.budget:
            victims, index = self._victim()
            if victims == shape:
                old = self._entries[shape][index]
                old.images.copy_(new.images)
                old.context.copy_(new.context)
                return
            self._remove(victims, index)
        self._entries.setdefault(shape, []).append(Entry(new.images.clone(), new.context.clone()))
        self.bytes += needed

    def _victim(self) -> tuple[Shape, int]:
        """A random entry: its shape, and its place among those of the shape."""
        index = self._random(sum(len(entries) for entries in self._entries.values()))
        for shape, entries in self._entries.items():
            if index < len(entries):
                return shape, index
            index -= len(entries)
        raise AssertionError("an index below the number of entries lies in one of the lists")

    def _remove(self, shape: Shape, index: int) -> None:
        entries = self._entries[shape]
        self.bytes -= entries[index].bytes
        entries[index] = entries[-1]
        entries.pop()
        if not entries:  # An empty list would be lost in a checkpoint, and `_victim` goes by the order of the shapes.
            del self._entries[shape]

    def _random(self, below: int) -> int:
        return int(torch.randint(below, (), generator=self._generator))

    def draw(self, shape: Shape, count: int) -> tuple[Tensor, Tensor]:
        """`count` different entries of a shape, drawn at random, as batches on the buffer's device.

        Raises ValueError when it holds fewer."""
        entries = self._entries.get(shape, [])
        if not 1 <= count <= len(entries):
            raise ValueError(f"{count} entries asked for, but the buffer holds {len(entries)} of this shape")
        chosen = [entries[i] for i in torch.randperm(len(entries), generator=self._generator)[:count].tolist()]
        return torch.stack([entry.images for entry in chosen]), torch.stack([entry.context for entry in chosen])

    def state_dict(self) -> dict[str, Any]:
        """Every entry in its place and the generator, as tensors and lists."""
        return {
            "generator": self._generator.get_state(),
            "images": [torch.stack([e.images for e in entries]) for entries in self._entries.values()],
            "contexts": [torch.stack([e.context for e in entries]) for entries in self._entries.values()],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Become what `state_dict` described. With a smaller budget than it had, random entries are left out."""
        self._entries, self.bytes = {}, 0
        for images, contexts in zip(state["images"], state["contexts"], strict=True):
            self.put(images, contexts)
        self._generator.set_state(state["generator"])

    def take_share(self, states: Iterable[dict[str, Any]], rank: int, world: int) -> None:
        """Become one of `world` buffers that share out the entries of others (their `state_dict`s). The generator stays."""
        self._entries, self.bytes = {}, 0
        turn = 0
        for state in states:
            for images, contexts in zip(state["images"], state["contexts"], strict=True):
                mine = [index for index in range(len(images)) if (turn + index) % world == rank]
                turn += len(images)
                if mine:
                    self.put(images[mine], contexts[mine])
