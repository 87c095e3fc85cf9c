"""The static step: state in, state out, no queue; what the law throws away is not computed."""

import pytest
import torch
from torch import Tensor, nn

from tests.models.taehv.formula import clip, formula_model, small_spec
from tinyworld.core.frames import round_trip_plan
from tinyworld.core.variants import VARIANTS
from tinyworld.models.taehv import StreamingTaehv

MODELS = {name: formula_model(small_spec(name)) for name in VARIANTS}


def close(left: Tensor, right: Tensor) -> None:
    torch.testing.assert_close(left, right, atol=2e-5, rtol=0)


@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize("sizes", [1, 3])
def test_streams_equal_the_whole(name: str, sizes: int) -> None:
    model = MODELS[name]
    size = model.spec.size_multiple
    frames = clip(21, size, size)
    with torch.no_grad():
        latents = model.encode(frames)
        decoded = model.decode(latents)
    stream = StreamingTaehv(model.optimize(), num_latents=latents.shape[1])
    found = [stream.encode(piece) for piece in frames.split(sizes, 1)]
    close(torch.cat([*found, stream.flush_encoder()], 1), latents)
    close(torch.cat([stream.decode(piece) for piece in latents.split(sizes, 1)], 1), decoded)


@pytest.mark.parametrize("name", ["taehv", "taecvx", "taeh3", "taew2_2_super"])
def test_round_trips_give_every_frame_back(name: str) -> None:
    model = MODELS[name]
    frames = clip(22, 30, 33)
    stream = StreamingTaehv(model.optimize(), num_latents=round_trip_plan(22, model.spec).latent_frames)
    close(torch.cat(list(stream.reconstruct(frames.split(5, 1))), 1), model.reconstruct(frames))


@torch.no_grad()
def test_the_state_goes_in_and_comes_out() -> None:
    """A step changes nothing but its results: from one state it can be taken twice, and back."""
    decoder = MODELS["taehv"].optimize().folded_decoder
    latents = torch.randn(3, 1, 16, 3, 5, generator=torch.Generator().manual_seed(0))
    start = [None] * decoder.memory_blocks
    _, after = decoder.step(latents[0], start, [False, False, False, True])
    kept = [x.clone() for x in after if x is not None]
    first, next_state = decoder.step(latents[1], after, [True] * 4)
    decoder.step(latents[2], next_state, [True] * 4)
    again, _ = decoder.step(latents[1], after, [True] * 4)
    assert all(torch.equal(left, right) for left, right in zip(first, again, strict=True))
    assert all(torch.equal(left, right) for left, right in zip(kept, after, strict=True))  # type: ignore[arg-type]


@torch.no_grad()
def test_no_past_is_a_past_of_zeros() -> None:
    decoder = MODELS["taew2_2_super"].optimize().folded_decoder
    latent = torch.randn(1, 48, 3, 5, generator=torch.Generator().manual_seed(0))
    frames, after = decoder.step(latent, [None] * decoder.memory_blocks, [True] * 4)
    zeros = [torch.zeros_like(x) for x in after if x is not None]
    for left, right in zip(frames, decoder.step(latent, zeros, [True] * 4)[0], strict=True):
        close(left, right)


@torch.no_grad()
def test_frames_that_are_thrown_away_are_not_computed() -> None:
    model = MODELS["taehv"]
    decoder = model.optimize().folded_decoder
    calls: list[nn.Module] = []
    for stage in decoder.stages:
        for layer in [*stage.memories, *stage.frames]:
            layer.register_forward_hook(lambda module, *_: calls.append(module))
    latent = torch.zeros(1, 16, 3, 3)
    frames, _ = decoder.step(latent, [None] * 9, [False, False, False, True])
    assert len(frames) == 1
    counts = [[calls.count(layer) for layer in [*stage.memories, *stage.frames]] for stage in decoder.stages]
    assert counts == [[1, 1, 1, 1], [1, 1, 1, 1, 1], [2, 2, 1, 0, 1]]


@torch.no_grad()
def test_a_compiled_step_takes_over_after_the_first_latent() -> None:
    """What is compiled is `step` itself; the stand-in counts where it is used."""
    fast = MODELS["taehv"].optimize()
    used = []

    def decoder_step(*arguments: object) -> object:
        used.append("decoder")
        return fast.folded_decoder.step(*arguments)  # type: ignore[arg-type]

    def encoder_step(*arguments: object) -> object:
        used.append("encoder")
        return fast.folded_encoder.step(*arguments)  # type: ignore[arg-type]

    fast.folded_decoder.compiled, fast.folded_encoder.compiled = decoder_step, encoder_step  # type: ignore[assignment]
    latents = fast.encode(clip(12))
    fast.decode(latents)
    assert used == ["encoder"] * 2 + ["decoder"] * 2
